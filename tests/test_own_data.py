"""haste tune on a folder of one's own: what it writes, and what it goes on with."""

import json
import logging

import numpy as np
import pytest

from haste.cli.tune import tune
from haste.config import read_run
from haste.errors import ConfigError, DataError
from haste.grid import read_grid
from haste.own_data import DATASET, grid_of_folder
from haste.paths import RunDir
from haste.training.run import train_and_evaluate

LABELS = 90


@pytest.fixture
def folder(tmp_path):
    """A table of texts of one label each."""
    path = tmp_path / "mine"
    path.mkdir()
    write_table(path, "train", 240)
    write_table(path, "test", 40)
    return path


def write_table(path, split, documents):
    rows = [{"text": f"w{i % LABELS} x", "labels": [f"l{i % LABELS}"]} for i in range(documents)]
    (path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def short(monkeypatch):
    """Runs of two epochs and few features."""

    def grid(*args, **options):
        training = {"epochs": 2, "batch_size": 64, "device": "cpu"}
        return {**grid_of_folder(*args, **options), "training": training}

    monkeypatch.setattr("haste.own_data.HIDDEN", 128)
    monkeypatch.setattr("haste.own_data.grid_of_folder", grid)


@pytest.mark.usefixtures("short")
def test_what_is_written_trains_and_a_second_search_goes_on(folder, tmp_path, caplog, capsys):
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO, logger="haste.training"):
        tune(folder, out, trials=2)
    assert "validation: P@1" in caplog.text
    assert "test: P@1" not in caplog.text
    assert "Trials" in capsys.readouterr().out
    grid = read_grid([out / "tuned.yaml"])
    assert len(list(grid.trial_runs())) == 2
    run = read_run(out / "run" / "config.yaml")
    assert run == grid.resolve(grid.runs()[0])
    with caplog.at_level(logging.INFO, logger="haste.training"):
        caplog.clear()
        tune(folder, out, trials=2)
        assert "epoch" not in caplog.text
        train_and_evaluate(run, RunDir(out / "run"))
    assert "test: P@1" in caplog.text


def test_a_changed_folder_makes_the_corpus_again(folder, tmp_path):
    out = tmp_path / "out"
    settings = grid_of_folder(folder, out, "dense")
    corpus = out / "data" / DATASET / "corpus" / "corpus.json"
    before = corpus.stat().st_mtime_ns
    assert grid_of_folder(folder, out, "dense") == settings
    assert corpus.stat().st_mtime_ns == before
    write_table(folder, "train", 200)
    grid_of_folder(folder, out, "dense")
    assert json.loads(corpus.read_text())["documents"]["train"] == 180


def test_dense_embeddings_go_to_the_layer_as_they_are(tmp_path):
    import scipy.sparse as sp

    for short in ("trn", "tst"):
        np.save(tmp_path / f"X.{short}.npy", np.eye(20, 8, dtype=np.float32))
        sp.save_npz(tmp_path / f"Y.{short}.npz", sp.eye(20, format="csr", dtype=np.float32))
    assert grid_of_folder(tmp_path, tmp_path / "out", "dense")["encoder"]["kind"] == "none"


def test_folders_that_will_not_do_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        grid_of_folder(tmp_path / "nowhere", tmp_path / "out", "dense")
    for path in (folder, next(path for path in folder.iterdir() if path.is_file())):
        with pytest.raises(ConfigError, match="has other files"):
            grid_of_folder(folder, path, "dense")
    with pytest.raises(ConfigError, match="'omikuji' is not trained"):
        grid_of_folder(tmp_path / "nowhere", tmp_path / "out", "omikuji")
