"""From a folder in a published layout to a corpus: what is held out, which column a label gets, what is refused."""

import gzip
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest

from haste.data import xmc
from haste.data.build import build_corpus
from haste.data.corpus import load_corpus
from haste.data.readers import base
from haste.data.registry import Dataset
from haste.data.synthetic import Plan, generate
from haste.errors import DataError
from haste.metrics.truth import load_truth

OBJECT = '{"uid": "%s", "title": "%s", "target_ind": %s}\n'


def dataset(**changed):
    return Dataset(name="mine", path="some/folder", **{"validation": 0.3, **changed})


def write(folder, train, test, labels="", **files):
    """JSON lines of documents given by their labels, named a, b, c... and t0, t1..."""
    folder.mkdir(exist_ok=True)
    rows = [OBJECT % (chr(97 + i), f"text {i}", ids) for i, ids in enumerate(train)]
    (folder / "trn.json").write_text("".join(rows))
    rows = [OBJECT % (f"t{i}", f"test {i}", ids) for i, ids in enumerate(test)]
    (folder / "tst.json").write_text("".join(rows))
    if labels:
        entries = (OBJECT % (name, f"label {name}", []) for name in labels)
        (folder / "lbl.json").write_text("".join(entries))
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


# labels 0 to 7: 6 only in test, 7 only in the document held out, 4 nowhere, 5 twice in one document
TRAIN = [[0, 1], [5, 2, 5], [3], [], [1, 2], [1, 7]]
TEST = [[6, 0], [2], []]
HELD_OUT = 5


@pytest.fixture
def chosen(monkeypatch):
    """The last training document is held out."""
    monkeypatch.setattr(xmc, "held_out", lambda n, _: np.arange(n) == HELD_OUT)


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_corpus_by_hand(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(base, "ROWS", rows)
    raw, ticks = write(tmp_path / "raw", TRAIN, TEST, "abcdefgh"), []
    info = build_corpus(dataset(), raw, tmp_path / "corpus", ticks.append)
    corpus = load_corpus(tmp_path / "corpus")
    assert corpus.info == info
    assert ticks[-1] == 9
    assert info.documents == {"train": 5, "validation": 1, "test": 3}
    assert corpus.documents("train")["uid"].to_pylist() == list("abcde")
    assert corpus.documents("validation")["uid"].to_pylist() == ["f"]
    assert corpus.texts("test") == ["test 0", "test 1", "test 2"]
    # trainable 0 1 2 3 5, then 6 and 7
    assert corpus.labels["uid"].to_pylist() == list("abcdfgh")
    assert corpus.labels["name"][4].as_py() == corpus.labels["text"][4].as_py() == "label f"
    assert (info.n_labels, info.n_extra) == (5, 2)
    assert [row.indices.tolist() for row in corpus.positives("train")] == [
        [0, 1],
        [2, 4],
        [3],
        [],
        [1, 2],
    ]
    assert corpus.positives("train").data.tolist() == [1.0] * 7
    assert corpus.positives("validation").indices.tolist() == [1, 6]
    assert [row.indices.tolist() for row in corpus.positives("test")] == [[0, 5], [2], []]
    assert corpus.reciprocal("test").nnz == corpus.reciprocal("validation").nnz == 0
    assert info.points == {"train": 7, "validation": 2, "test": 3}
    assert info.statistics.labels_per_document == pytest.approx(7 / 5)
    assert info.statistics.words_per_document == 2
    assert info.statistics.seen == {"validation": 0.5, "test": pytest.approx(2 / 3)}
    assert info.source["path"] == "some/folder"
    assert set(info.source["files"]) == {"trn.json", "tst.json", "lbl.json"}
    assert info.source["files"]["tst.json"]["bytes"] == (raw / "tst.json").stat().st_size
    assert "user's own" in info.licence


@pytest.mark.usefixtures("chosen")
def test_filter_pairs_stand_where_reciprocal_pairs_do(tmp_path):
    filters = {
        # document f is held out; 4 is no label of the corpus, document a is trained on
        "filter_labels_train": "5 7\n5 4\n0 1\n",
        "filter_labels_test": "0 0\n2 3\n2 3\n",
    }
    raw = write(tmp_path / "raw", TRAIN, TEST, "abcdefgh", **filters)
    info = build_corpus(dataset(), raw, tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    assert corpus.reciprocal("validation").toarray().tolist() == [[0, 0, 0, 0, 0, 0, 1]]
    test = corpus.reciprocal("test").toarray()
    assert np.argwhere(test).tolist() == [[0, 0], [2, 3]]
    assert test.max() == 1
    # of 3 test positives one is filtered; the other pair is no positive
    assert info.statistics.reciprocal == {"validation": 0.5, "test": pytest.approx(1 / 3)}
    # document 0's first answer is a pair to leave out, and its second is right too; 1 is wrong
    ids = np.full((3, 100), -1)
    ids[0, :2], ids[1, 0] = [0, 5], 1
    measured = load_truth(tmp_path / "corpus", "test").evaluate(
        ids, -np.arange(300.0).reshape(3, 100)
    )
    assert measured["metrics"]["P@1"] == pytest.approx(100 / 3)
    assert measured["metrics"]["P@3"] == pytest.approx(200 / 9)
    # document 2 has no positive in either case
    assert measured["without_reciprocal_pairs"]["P@1"] == pytest.approx(100 / 2)
    assert measured["without_reciprocal_pairs"]["P@3"] == pytest.approx(100 / 6)


@pytest.mark.parametrize("missing", ["filter_labels_train", "filter_labels_test"])
def test_filtered_without_the_list_is_refused_and_an_empty_list_is_an_answer(tmp_path, missing):
    lists = {"filter_labels_train": "", "filter_labels_test": "0 0\n"}
    raw = write(tmp_path / "raw", TRAIN, TEST, "abcdefgh", **lists)
    assert build_corpus(dataset(filtered=True), raw, tmp_path / "corpus").filtered
    (raw / f"{missing}.txt").rename(tmp_path / f"{missing}.txt")  # one folder up
    with pytest.raises(DataError, match=rf"raw/{missing}\.txt: no such file.* `filtered: true`"):
        build_corpus(dataset(filtered=True), raw, tmp_path / "other")
    assert not build_corpus(dataset(), raw, tmp_path / "other").filtered


def test_text_of_opaque_labels_is_not_written(tmp_path):
    raw = write(tmp_path / "raw", TRAIN, TEST, "abcdefgh")
    build_corpus(dataset(opaque_labels=True), raw, tmp_path / "corpus")
    labels = load_corpus(tmp_path / "corpus").labels
    assert labels["text"].null_count == len(labels)
    assert labels["name"][0].as_py() == "label a"


@pytest.mark.parametrize(
    ("documents", "share", "number"),
    [(2, 0.9, 1), (10, 0.01, 1), (1000, 0.02, 20), (1_700_000, 0.02, 10_000)],
)
def test_how_many_are_held_out(documents, share, number):
    chosen = xmc.held_out(documents, share)
    assert chosen.shape == (documents,)
    assert np.count_nonzero(chosen) == number
    np.testing.assert_array_equal(chosen, xmc.held_out(documents, share))
    if number > 1:  # from everywhere
        assert np.flatnonzero(chosen).mean() == pytest.approx(documents / 2, rel=0.2)


@pytest.mark.parametrize(
    ("expected", "labels", "text"),
    [
        ({"train_all": 7, "test": 3}, "", "mine: train_all: expected 7, found 6"),
        ({"labels": 9, "test": 2}, "abcdefgh", "labels: expected 9, found 8; test: expected 2"),
        ({"labels": 7}, "", "labels: expected 7, found 8"),
        ({"train": 6}, "", "train: expected 6, found 4"),
        ({"features": 3}, "", "features: expected 3, found 0"),
    ],
)
def test_other_counts_than_published_stop_and_show_both(tmp_path, expected, labels, text):
    raw = write(tmp_path / "raw", TRAIN, TEST, labels)
    with pytest.raises(DataError, match=text):
        build_corpus(dataset(expected=expected), raw, tmp_path / "corpus")
    assert not (tmp_path / "corpus" / "corpus.json").exists()


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "ROWS", 250)
    plan = Plan(documents=10_000, test_documents=100, labels=50, labels_per_document=1.5, words=100)
    generate(plan, tmp_path / "raw")
    text = len(gzip.decompress((tmp_path / "raw" / "trn.json.gz").read_bytes()))
    tracemalloc.start()
    build_corpus(dataset(), tmp_path / "raw", tmp_path / "corpus")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < text / 2
    assert pq.ParquetFile(tmp_path / "corpus" / "train.parquet").num_row_groups == 40
