"""Which layout a folder has, and that each reads the same documents from its files."""

from pathlib import Path

import numpy as np
import pytest
from layout_files import FEATURES, FILES, FILTERS, N_LABELS, TEST, TRAIN, read, write

from haste.data import xmc
from haste.data.build import build_corpus
from haste.data.corpus import load_corpus
from haste.data.readers import base as base_module
from haste.data.readers import detect
from haste.data.readers import pecos as pecos_module
from haste.data.registry import Dataset
from haste.errors import DataError

WANTED = {"train": TRAIN, "test": TEST}


@pytest.mark.parametrize("rows", [2, 16_384])
@pytest.mark.parametrize("name", FILES)
def test_every_layout_gives_the_same_documents(tmp_path, monkeypatch, name, rows):
    monkeypatch.setattr(base_module, "ROWS", rows)
    monkeypatch.setattr(pecos_module, "ROWS", rows)
    layout = detect(write(tmp_path / "some" / "folder", FILES[name]).parent)
    assert layout.name == name
    assert layout.n_features == (0 if layout.has_text else 4)
    for split, documents in WANTED.items():
        wanted = documents
        if not layout.has_text:
            rows_of = FEATURES[split]
            wanted = [(row, labels) for row, (_, labels) in zip(rows_of, documents, strict=True)]
        found = read(layout, split)
        if name == "AttentionXML":  # ids as the words are first met: zero, two, one
            found = [(text, sorted([0, 2, 1][i] for i in labels)) for text, labels in found]
        assert found == wanted
        assert layout.count(split) == len(documents)
        assert max(len(block) for block in layout.blocks(split)) == min(rows, len(documents))


@pytest.mark.parametrize("name", FILES)
def test_every_layout_becomes_a_corpus(tmp_path, monkeypatch, name):
    monkeypatch.setattr(xmc, "held_out", lambda n, _: np.arange(n) == 1)
    raw = write(tmp_path / "raw", FILES[name])
    info = build_corpus(Dataset(name="mine", path="raw"), raw, tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    assert info.documents == {"train": 2, "validation": 1, "test": 2}
    assert corpus.positives("train").sum(axis=1).ravel().tolist() == [[2, 0]]
    if info.has_text:
        assert corpus.texts("train") == [text for text, _ in TRAIN[::2]]
    else:
        assert corpus.features("test").toarray().tolist() == FEATURES["test"]


@pytest.mark.parametrize("name", FILES)
def test_labels_are_named(tmp_path, name):
    layout = detect(write(tmp_path, FILES[name]))
    list(layout.blocks("train"))
    table = layout.labels(np.array([2, 0]))
    named = {
        "JSON lines": (["l2", "l0"], ["apple", "colour"], ["apple", "colour of fruit"]),
        "AttentionXML": (["one", "zero"], ["one", "zero"], [None, None]),
        "XMC repository, text": (["2", "0"], ["apple", "colour"], ["apple", "colour"]),
    }
    uids, names, texts = named.get(name, (["2", "0"], ["2", "0"], [None, None]))
    assert (table["uid"].to_pylist(), table["name"].to_pylist()) == (uids, names)
    assert table["text"].to_pylist() == texts
    assert layout.n_labels == (None if name == "AttentionXML" else N_LABELS)


@pytest.mark.parametrize("name", ["JSON lines", "AttentionXML"])
def test_titles_alone(tmp_path, name):
    layout = detect(write(tmp_path, FILES[name]), "title")
    texts = [text for block in layout.blocks("test") for text in block.texts]
    assert texts == ["apple", "fig"]


def test_filter_pairs(tmp_path):
    layout = detect(write(tmp_path, {**FILES["JSON lines"], **FILTERS}))
    assert layout.filter_pairs("train").tolist() == [[0, 2], [1, 1], [2, 3]]
    assert layout.filter_pairs("test").tolist() == [[1, 0]]
    (tmp_path / "filter_labels_test.txt").unlink()
    assert layout.filter_pairs("test") is None


@pytest.mark.parametrize("line", ["1", "1 2 3", "2 0", "0 4", "-1 0", "x 0"])
def test_a_pair_to_filter_that_is_none(tmp_path, line):
    files = {**FILES["PECOS"], "filter_labels_test.txt": f"0 0\n{line}\n".encode()}
    with pytest.raises(DataError, match=r"filter_labels_test\.txt: line 2: .* below 2 .* below 4"):
        detect(write(tmp_path, files)).filter_pairs("test")


def test_text_comes_before_features(tmp_path):
    for name in reversed(FILES):
        write(tmp_path, FILES[name])
        assert detect(tmp_path).name == name


def test_a_layout_in_two_folders_is_refused(tmp_path):
    for folder in ("one", "two"):
        write(tmp_path / folder, FILES["libsvm"])
    with pytest.raises(DataError, match=r"the libsvm layout is in .*one and in .*two"):
        detect(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_files_are_all_that_reading_uses(tmp_path, name):
    content = {**FILES[name], **FILTERS, ".X.trn.txt.swp": b"", ".DS_Store": b"", "notes.txt~": b""}
    write(tmp_path, content)
    files = detect(tmp_path).files()
    assert {path.name for path in files} == {Path(each).name for each in (*FILES[name], *FILTERS)}
    for path in tmp_path.rglob("*"):
        if path.is_file() and path not in files:
            path.unlink()
    for split, documents in WANTED.items():
        assert len(read(detect(tmp_path), split)) == len(documents)


@pytest.mark.parametrize("below", FILES)
def test_outputs_in_a_folder_below_are_not_taken_for_the_data_set(tmp_path, below):
    write(tmp_path / "mine", FILES["libsvm"])
    write(tmp_path / "mine/data/other", FILES[below])
    assert detect(tmp_path / "mine").folder == detect(tmp_path).folder == tmp_path / "mine"


@pytest.mark.parametrize("missing", ["Y.tst.npz", "X.tst.txt"])
def test_half_a_layout_says_what_was_found_and_what_is_needed(tmp_path, missing):
    write(tmp_path, {**FILES["PECOS"], "LICENSE": b""})
    (tmp_path / missing).unlink()
    found = ", ".join(sorted({*FILES["PECOS"], "LICENSE"} - {missing}))
    with pytest.raises(DataError, match="no layout of a data set") as error:
        detect(tmp_path)
    assert f"Found: {found}. Needed is one of: PECOS: X.trn.txt, X.tst.txt, Y.trn.npz" in str(
        error.value
    )


def test_folders_that_may_not_be_read_are_left_out(tmp_path, monkeypatch):
    for name in ("data", "lost+found"):
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            (tmp_path / name / f"{split}.csv").write_text("text,labels\nx,a\n")
    closed = {tmp_path / "lost+found"}
    # the user of the tests may read anything
    monkeypatch.setattr("os.access", lambda path, _mode: path not in closed)
    assert detect(tmp_path).folder == tmp_path / "data"
    closed.add(tmp_path)
    with pytest.raises(DataError, match="may not be read"):
        detect(tmp_path)
