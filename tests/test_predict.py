import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from haste.cli import app
from haste.errors import ConfigError, DataError
from haste.files import read_yaml, write_yaml
from haste.metrics.runs import read_predictions
from haste.paths import RunDir
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
    with pytest.raises(ConfigError, match="k: 0 is not allowed"):
        list(Predictor(run, torch.device("cpu"))(["w01"], 0))


def command(run, texts, *more):
    return ["predict", "--run", str(run.root), "--input", str(texts), "--k", "2", *more]


def test_each_line_has_a_result_beside_it(run, tmp_path):
    texts = ["w01 w02", "", " \t", "w03 unknown", "w04\u2028w05\x0bw06\x0c\x85w07", "\u00fc"]
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(texts).encode())
    plain = CliRunner().invoke(app, command(run, path))
    assert plain.exit_code == 0
    columns = [line.split("\t") for line in plain.stdout.split("\n")[:-1]]
    assert [len(each) for each in columns] == [2, 1, 1, 2, 2, 2]
    assert columns[1] == columns[2] == [""]
    shown = CliRunner().invoke(app, command(run, path, "--format", "jsonl")).stdout.split("\n")
    rows = [json.loads(line) for line in shown[:-1]]
    assert [row["text"] for row in rows] == texts
    assert [len(row["labels"]) for row in rows] == [2, 0, 0, 2, 2, 2]
    first = rows[0]["labels"][0]
    assert columns[0][0] == f"{first['score']:.3f} {first['name']}"


def test_a_name_stays_on_its_line_and_in_its_column(run, tmp_path, monkeypatch):
    path = tmp_path / "texts.txt"
    path.write_text("w01\n")
    made = Predictor.__init__

    def rename(self, *args, **options):
        made(self, *args, **options)
        self.names = pa.chunked_array([["a\tb\nc\u2028d"] * len(self.names)])

    monkeypatch.setattr(Predictor, "__init__", rename)
    (line,) = CliRunner().invoke(app, command(run, path)).stdout.splitlines()
    assert [each.split(" ", 1)[1] for each in line.split("\t")] == ["a b c d"] * 2


def test_blocks_give_what_all_together_gives(run):
    texts = [f"w{i % 60:02d} w{i * 7 % 60:02d}" for i in range(30)]
    predictor = Predictor(run, torch.device("cpu"))
    together = list(predictor(texts, 3))
    apart = [found for text in texts for found in predictor([text], 3)]
    assert [[s.uid for s in row] for row in apart] == [[s.uid for s in row] for row in together]


def test_texts_that_are_no_file_are_named_before_the_model_is_loaded(tmp_path):
    for path, error in ((tmp_path / "none.txt", FileNotFoundError), (tmp_path, IsADirectoryError)):
        result = CliRunner().invoke(app, command(RunDir(tmp_path), path))
        assert isinstance(result.exception, error)
        assert result.exception.filename == str(path)


def test_standard_input_is_answered_line_by_line_in_any_locale(run):
    words = [sys.executable, "-m", "haste", *command(run, "-")]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with subprocess.Popen(
        [*words, "--format", "jsonl"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        process.stdin.write("w01 \u00fc\n".encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["text"] == "w01 \u00fc"
        rest, error = process.communicate(b"\nw02\ncaf\xe9\nw03\n", timeout=60)
    assert [json.loads(line)["text"] for line in rest.splitlines()] == ["", "w02"]
    assert process.returncode == 2
    assert b"standard input: line 4" in error.splitlines()[-1]
    assert b"Traceback" not in error


def test_a_prediction_imports_nothing_that_it_does_not_use(run):
    code = (
        "import sys; from pathlib import Path; from haste.device import choose_device; "
        "from haste.paths import RunDir; from haste.predict import Predictor; "
        "Predictor(RunDir(Path(sys.argv[1])), choose_device('cpu'))(['w01'], 1).table(['w01']); "
        "heavy = {'pandas', 'faiss', 'sklearn', 'transformers', 'optimi', 'torch._dynamo'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    words = [sys.executable, "-c", code, str(run.root)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x"])
def test_a_device_that_is_none_is_refused(run, tmp_path, device):
    texts = tmp_path / "texts.txt"
    texts.write_text("w01")
    command = ["predict", "--run", str(run.root), "--input", str(texts), "--device", device]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, ConfigError)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(DataError, match="no trained model"):
        Predictor(RunDir(tmp_path / "nowhere"), torch.device("cpu"))


def test_a_run_that_is_not_finished_is_named(tiny):
    config = tiny.config()
    run = tiny.run_dir("run", config)
    with pytest.raises(DataError, match=r"model.safetensors: no such file"):
        Predictor(run, torch.device("cpu"))


def test_weights_are_mapped_and_verified_on_request(run):
    texts = ["w01 w02", "w03"]
    predictor = Predictor(run, torch.device("cpu"))
    expected = list(predictor(texts, 3))
    maps = Path("/proc/self/maps")
    if maps.is_file():
        assert str(run.model) in maps.read_text()
    content = bytearray(run.model.read_bytes())
    content[-1] ^= 1
    # another file in its place: what is mapped stays
    run.model.unlink()
    run.model.write_bytes(content)
    assert list(predictor(texts, 3)) == expected
    Predictor(run, torch.device("cpu"))
    with pytest.raises(DataError, match=r"model\.safetensors: damaged"):
        Predictor(run, torch.device("cpu"), verify=True)
    path = run.root / "texts.txt"
    path.write_text("w01")
    result = CliRunner().invoke(app, command(run, path, "--verify"))
    assert isinstance(result.exception, DataError)


@pytest.mark.parametrize(
    "sections",
    [
        {"layer": {"pattern": "label_tree", "bias_init": "zero", "shortlist": 2}},
        {"training": {"optimizer": "adamw", "learning_rate": 1e-3}},
        {"layer": {"pattern": "unstructured", "fan_in": 16}},
        {"auxiliary": {"scale": 0.5}},
    ],
    ids=["label_tree", "adamw", "unstructured", "auxiliary"],
)
def test_what_is_mapped_predicts_what_was_trained(tiny, sections):
    from haste.data.corpus import load_corpus

    training = {"epochs": 1, **sections.get("training", {})}
    config = tiny.config(**{**sections, "training": training})
    folder = tiny.run_dir("run", config)
    train_and_evaluate(config, folder)
    ids, _ = read_predictions(folder)
    found = Predictor(folder, torch.device("cpu"))(load_corpus(tiny.corpus).texts("test"), 1)
    assert [row[0].name for row in found] == [f"label {row[0]}" for row in ids]


def test_a_run_of_the_triton_backend_is_loaded_without_a_gpu(run, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    texts = ["w01 w02"]
    expected = list(Predictor(run, torch.device("cpu"))(texts, 3))
    settings = read_yaml(run.config)
    settings["training"]["backend"] = "triton"
    write_yaml(run.config, settings)
    assert list(Predictor(run, torch.device("cpu"))(texts, 3)) == expected
