"""Predictions and truth of any tool, from files."""

import json

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from pyarrow import csv, parquet
from typer.testing import CliRunner

from haste.cli import app
from haste.errors import ConfigError, DataError
from haste.metrics.prediction_files import evaluate_files
from small_corpus import write_small_corpus

TRUTH = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
SCORES = np.array([[0.9, 0.1, 0.5, 0.0], [0.2, 0.1, 0.7, 0.0], [0.0, 0.0, 0.0, 0.4]])


def matrix(path, values):
    sp.save_npz(path, sp.csr_matrix(values.astype(np.float32)))


def pairs(values):
    rows, columns = np.nonzero(values)
    return {"document": rows, "label": columns, "score": values[rows, columns].astype(float)}


def long_csv(path, values):
    csv.write_csv(pa.table(pairs(values)), path)


def long_parquet(path, values):
    parquet.write_table(pa.table(pairs(values)), path)


def lists(path, values):
    found = [np.nonzero(row)[0] for row in values]
    scores = [row[own] for row, own in zip(values, found, strict=True)]
    parquet.write_table(pa.table({"labels": found, "scores": scores}), path)


def ranked(path, values):
    ids = np.argsort(-values, axis=1)
    scores = np.take_along_axis(values, ids, axis=1)
    np.savez(path, ids=np.where(scores > 0, ids, -1), scores=scores)


KINDS = {
    "matrix.npz": matrix,
    "long.csv": long_csv,
    "long.parquet": long_parquet,
    "lists.parquet": lists,
    "ranked.npz": ranked,
}


@pytest.mark.parametrize("truth", KINDS)
@pytest.mark.parametrize("predictions", KINDS)
def test_every_kind_of_file_gives_the_same_metrics(tmp_path, predictions, truth):
    (tmp_path / "p").mkdir()
    (tmp_path / "t").mkdir()
    KINDS[predictions](tmp_path / "p" / predictions, SCORES)
    KINDS[truth](tmp_path / "t" / truth, TRUTH)
    found = evaluate_files(tmp_path / "p" / predictions, tmp_path / "t" / truth)["metrics"]
    assert found["P@1"] == pytest.approx(200 / 3)
    assert found["P@3"] == pytest.approx(100 * 4 / 9)
    assert not any(name.startswith("PS") for name in found)


def test_propensities_need_the_labels_of_the_training_documents(tmp_path):
    matrix(tmp_path / "p.npz", SCORES)
    matrix(tmp_path / "t.npz", TRUTH)
    matrix(tmp_path / "train.npz", np.repeat(TRUTH, 5, axis=0))
    found = evaluate_files(tmp_path / "p.npz", tmp_path / "t.npz", tmp_path / "train.npz")
    assert 0 < found["metrics"]["PSP@1"] < 100


def test_a_label_that_a_document_has_twice_counts_once(tmp_path):
    matrix(tmp_path / "p.npz", SCORES)
    matrix(tmp_path / "t.npz", TRUTH)
    once = [[0, 2], [1], [3], [0]]
    for name, rows in (("once", once), ("twice", [[*row, row[0]] for row in once])):
        parquet.write_table(pa.table({"labels": rows}), tmp_path / f"{name}.parquet")
    files = tmp_path / "p.npz", tmp_path / "t.npz"
    metrics = [evaluate_files(*files, tmp_path / f"{n}.parquet") for n in ("once", "twice")]
    assert metrics[0] == metrics[1]


def psp(folder, *more, training="train.npz"):
    """PSP@1 by the command; `more` are words behind it."""
    matrix(folder / "p.npz", SCORES)
    matrix(folder / "t.npz", TRUTH)
    files = {"predictions": "p.npz", "truth": "t.npz", "training": training}
    words = [word for name, file in files.items() for word in (f"--{name}", str(folder / file))]
    result = CliRunner().invoke(app, ["evaluate", *words, *more])
    return json.loads(result.stdout)["PSP@1"]


def test_propensities_have_the_constants_of_the_corpus_or_those_that_are_stated(tmp_path):
    # labels of frequencies 3, 6, 3 and 3 of 9 documents
    train = np.repeat(TRUTH, [3, 6, 3], axis=0)
    matrix(tmp_path / "train.npz", train)
    usual = psp(tmp_path)
    assert usual == psp(tmp_path, "--propensity", "0.55", "1.5")
    amazon = psp(tmp_path, "--propensity", "0.6", "2.6")
    assert amazon != pytest.approx(usual, abs=1e-3)
    splits = {"train": train, "validation": TRUTH, "test": TRUTH}
    write_small_corpus(tmp_path / "corpus", splits, propensity_a=0.6, propensity_b=2.6)
    labels = "corpus/train.labels.npz"
    assert psp(tmp_path, training=labels) == pytest.approx(amazon)
    stated = psp(tmp_path, "--propensity", "0.55", "1.5", training=labels)
    assert stated == pytest.approx(usual)


@pytest.mark.parametrize("constants", [(0.0, 1.5), (0.55, -1.0)])
def test_constants_of_propensities_are_positive(tmp_path, constants):
    for name, values in (("p", SCORES), ("t", TRUTH), ("train", np.repeat(TRUTH, 5, axis=0))):
        matrix(tmp_path / f"{name}.npz", values)
    files = [tmp_path / f"{name}.npz" for name in ("p", "t", "train")]
    with pytest.raises(ConfigError, match=str(min(constants))):
        evaluate_files(*files, propensity=constants)


def test_constants_without_training_documents_are_refused(tmp_path):
    matrix(tmp_path / "p.npz", SCORES)
    matrix(tmp_path / "t.npz", TRUTH)
    with pytest.raises(ConfigError, match="--training"):
        evaluate_files(tmp_path / "p.npz", tmp_path / "t.npz", propensity=(0.6, 2.6))


def test_the_command_prints_the_metrics_as_json(tmp_path):
    files = {"--predictions": tmp_path / "p.npz", "--truth": tmp_path / "t.npz"}
    matrix(files["--predictions"], SCORES)
    matrix(files["--truth"], TRUTH)
    words = [str(word) for option in files.items() for word in option]
    result = CliRunner().invoke(app, ["evaluate", *words])
    assert json.loads(result.stdout)["P@1"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("p.csv", {"document": [9], "label": [0], "score": [1.0]}, "9 is no document"),
        ("p.csv", {"doc": [0], "label": [0]}, "no column document"),
        ("p.csv", {"document": [0], "label": [None], "score": [1.0]}, "column label is empty"),
        ("p.csv", {"document": [0], "label": ["a"], "score": [1.0]}, "names here and numbers in"),
        ("p.txt", {"document": [0], "label": [0]}, "ends in .npz, .csv or .parquet"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, name, columns, message):
    csv.write_csv(pa.table(columns), tmp_path / name)
    matrix(tmp_path / "t.npz", TRUTH)
    with pytest.raises(DataError, match=message):
        evaluate_files(tmp_path / name, tmp_path / "t.npz")
