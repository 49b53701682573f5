import json

import pytest
import torch
from typer.testing import CliRunner

from haste.cli import app
from haste.errors import ConfigError, DataError
from haste.metrics.runs import read_predictions
from haste.predict import Predictor
from haste.training.run import train_and_evaluate


@pytest.fixture
def run(tiny):
    config = tiny.config(head=8, training={"epochs": 1})
    folder = tiny.run_dir("run", config)
    train_and_evaluate(config, folder)
    return folder


def test_texts_get_the_labels_of_the_runs_own_predictions(tiny, run):
    from haste.data.corpus import load_corpus

    texts = load_corpus(tiny.corpus).texts("test")
    ids, scores = read_predictions(run)
    found = list(Predictor(run, torch.device("cpu"))(texts, 3))
    assert [[s.name for s in row] for row in found] == [
        [f"label {i}" for i in row[:3]] for row in ids
    ]
    first = torch.sigmoid(torch.from_numpy(scores[:, 0])).tolist()
    assert [row[0].score for row in found] == pytest.approx(first, rel=1e-5)


def test_never_more_labels_than_there_are(run):
    (row,) = Predictor(run, torch.device("cpu"))(["w01 w02"], 99)
    assert len(row) == 40
    with pytest.raises(DataError, match="k: 0 labels asked for"):
        list(Predictor(run, torch.device("cpu"))(["w01"], 0))


def test_command_prints_text_and_jsonl(run, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("w01 w02\n\nw03 unknown\n")
    command = ["predict", "--run", str(run.root), "--input", str(texts), "--k", "2"]
    plain = CliRunner().invoke(app, command)
    assert plain.exit_code == 0
    lines = plain.stdout.splitlines()
    assert [lines[0], lines[3]] == ["w01 w02", "w03 unknown"]
    assert len(lines) == 6
    rows = CliRunner().invoke(app, [*command, "--format", "jsonl"]).stdout.splitlines()
    first = json.loads(rows[0])
    assert first["text"] == "w01 w02"
    assert lines[1] == f"  {first['labels'][0]['score']:.3f}  {first['labels'][0]['name']}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; give texts, one a line"),
        (b"\n  \n", "holds no text"),
        (b"caf\xe9", "not UTF-8 at byte 3"),
    ],
)
def test_bad_texts_are_named(tmp_path, content, message):
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    result = CliRunner().invoke(app, ["predict", "--run", str(tmp_path), "--input", str(path)])
    assert isinstance(result.exception, DataError)
    assert message in str(result.exception)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x"])
def test_a_device_that_is_none_is_refused(run, tmp_path, device):
    texts = tmp_path / "texts.txt"
    texts.write_text("w01")
    command = ["predict", "--run", str(run.root), "--input", str(texts), "--device", device]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, ConfigError)


def test_a_run_that_is_not_finished_is_named(tiny):
    config = tiny.config()
    run = tiny.run_dir("run", config)
    with pytest.raises(DataError, match=r"model.safetensors: no such file"):
        Predictor(run, torch.device("cpu"))
