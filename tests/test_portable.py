"""A trained run in a folder that needs nothing else."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

from haste import HasteClassifier
from haste.checksums import read_description, write_description
from haste.cli import app
from haste.data.corpus import load_corpus
from haste.errors import ConfigError
from haste.files import read_yaml, write_yaml
from haste.metrics.runs import read_predictions
from haste.metrics.truth import truth_of
from haste.paths import CorpusDir, RunDir
from haste.portable import save_pretrained
from haste.predict import Predictor
from haste.training.run import train_and_evaluate
from test_predict import command, run  # noqa: F401

TEXTS = ["w01 w02", "w03 unknown w59", ""]


@pytest.fixture
def exported(run, tmp_path):  # noqa: F811
    """Of the run, moved away from where it was written."""
    folder = tmp_path / "model"
    made = CliRunner().invoke(app, ["export", "--run", str(run.root), "--out", str(folder)])
    assert made.exit_code == 0, made.output
    return folder.rename(tmp_path / "moved")


def test_predicts_as_the_run_does_without_its_data(run, exported, monkeypatch):  # noqa: F811
    wanted = list(Predictor(run, torch.device("cpu"))(TEXTS, 3))
    monkeypatch.chdir("/")
    assert list(Predictor(RunDir(exported), torch.device("cpu"))(TEXTS, 3)) == wanted
    again = HasteClassifier.from_pretrained(exported, device="cpu")
    found, _ = again.predict(TEXTS[:2], k=3)
    assert found.tolist() == [[s.name for s in row] for row in wanted[:2]]


def test_propensities_have_the_constants_of_the_corpus(tiny, run, exported):  # noqa: F811
    constants = {"propensity_a": 0.6, "propensity_b": 2.6}
    described = CorpusDir(exported).info
    write_description(described, {**read_description(described, ""), **constants})
    corpus = load_corpus(tiny.corpus)
    corpus = replace(corpus, info=replace(corpus.info, **constants))
    truth = truth_of(corpus, "test", corpus.label_frequencies())
    labels = [[f"label {column}" for column in row.indices] for row in truth.positives]
    model = HasteClassifier.from_pretrained(exported, device="cpu")
    wanted = truth.evaluate(*read_predictions(run))["metrics"]
    assert model.evaluate(corpus.texts("test"), labels) == pytest.approx(wanted)


def test_has_a_card_with_the_runs_metrics(exported):
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: haste\n")
    assert "| P@1 |" in card
    assert "40 labels, 150 training documents" in card


def test_a_folder_with_files_in_it_is_left_alone(run):  # noqa: F811
    predictor = Predictor(run, torch.device("cpu"))
    for path in (run.root, run.config):
        with pytest.raises(ConfigError, match="has files in it"):
            save_pretrained(predictor, path)


def test_an_estimator_comes_back_as_it_was_saved(tmp_path):
    texts = [f"w{i % 7} x{i % 5}" for i in range(200)]
    labels = [[i % 7, 10 + i % 5] for i in range(200)]
    model = HasteClassifier(training={"epochs": 2}, device="cpu").fit(texts, labels)
    model.save_pretrained(tmp_path / "saved")
    again = HasteClassifier.from_pretrained(tmp_path / "saved", device="cpu")
    for before, after in zip(model.predict(texts[:5]), again.predict(texts[:5]), strict=True):
        assert before.tolist() == after.tolist()
    assert again.evaluate(texts, labels) == model.evaluate(texts, labels)


@pytest.mark.parametrize("pattern", ["group_fan_in", "fixed_fan_in", "block_sparse", "dense"])
def test_a_program_of_torch_alone_gives_the_same_labels(tiny, tmp_path, pattern):
    config = tiny.config(
        head=0 if pattern == "dense" else 8,
        layer={"pattern": pattern, "fan_in": 16, "dropout": 0.1},
    )
    assert_program_predicts_as_run(tiny, config, tmp_path)


@pytest.mark.parametrize("attention", ["auto", "packed"])
def test_a_program_of_a_transformer_sees_no_padding(tiny, tmp_path, attention):
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = tmp_path / "bert"
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=64, hidden_size=32, **shape)).save_pretrained(model)
    shutil.copy(tiny.model / "tokenizer.json", model)
    encoder = {"kind": "transformer", "attention": attention, "max_len": 12}
    config = tiny.config(head=0, encoder=encoder, layer={"fan_in": 16})
    config = replace(config, inputs=replace(config.inputs, model=str(model)))
    assert_program_predicts_as_run(tiny, config, tmp_path)


def assert_program_predicts_as_run(tiny, config, tmp_path):
    """Of documents of different lengths."""
    folder = tiny.run_dir("run", config)
    train_and_evaluate(config, folder)
    out = tmp_path / "model"
    CliRunner().invoke(app, ["export", "--run", str(folder.root), "--out", str(out), "--program"])
    predictor = Predictor(folder, torch.device("cpu"))
    texts = ["w01 w02", "w03", "w04 w05 w06"]
    found, scores = predictor.predict(texts, 40)
    predictor.tokenizer.enable_padding(pad_id=0)
    encoded = predictor.tokenizer.encode_batch(texts)
    ids = torch.tensor([item.ids for item in encoded])
    mask = torch.tensor([item.attention_mask for item in encoded]).bool()
    logits = torch.export.load(out / "model.pt2").module()(ids, mask)
    own = torch.from_numpy(scores).gather(1, torch.from_numpy(found).long().argsort(1))
    assert torch.allclose(logits.sigmoid(), own, atol=1e-5)


def test_predictions_go_to_a_parquet_file(run, tmp_path):  # noqa: F811
    path, out = tmp_path / "texts.txt", tmp_path / "out.parquet"
    path.write_text("\n".join(TEXTS) + "\n")
    made = CliRunner().invoke(app, command(run, path, "--out", str(out)))
    assert made.exit_code == 0, made.output
    table = pd.read_parquet(out)
    assert list(table) == ["text", "labels", "names", "scores"]
    assert list(table["text"]) == TEXTS
    rows = [list(zip(row.labels, row.names, row.scores, strict=True)) for row in table.itertuples()]
    assert rows == list(Predictor(run, torch.device("cpu"))(TEXTS, 2))
    refused = CliRunner().invoke(app, command(run, path, "--out", "x.csv"))
    assert isinstance(refused.exception, ConfigError)


def test_a_run_is_read_from_any_working_folder(run, tmp_path, monkeypatch):  # noqa: F811
    project = tmp_path / "project"
    shutil.copytree(run.root, project / "results" / "run")
    config = RunDir(project / "results" / "run").config
    for name in ("corpus", "tokens", "model"):
        shutil.copytree(read_yaml(run.config)["inputs"][name], project / "data" / name)
    settings = read_yaml(config)
    settings["inputs"] |= {name: f"data/{name}" for name in ("corpus", "tokens", "model")}
    write_yaml(config, settings)
    monkeypatch.chdir("/")
    found = list(Predictor(RunDir(config.parent), torch.device("cpu"))(TEXTS, 2))
    assert [len(row) for row in found] == [2, 2, 0]
