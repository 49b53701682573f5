from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from haste.checksums import read_description, write_description
from haste.data.corpus import CorpusWriter, document_table, load_corpus
from haste.errors import DataError
from haste.files import write_csr
from haste.runs import corpus_digest
from small_corpus import one_hot, write_small_corpus


def write(folder, train, width, test=((0,),), **options):
    """A corpus with these labels of the training and test documents, and one document for validation."""
    rows = {"train": train, "validation": [[0]], "test": test}
    positives = {split: one_hot(labels, width) for split, labels in rows.items()}
    texts = {split: ["a text"] * len(labels) for split, labels in rows.items()}
    return write_small_corpus(folder, positives, **{"texts": texts, **options})


@pytest.fixture
def corpus(tmp_path):
    return write(tmp_path, [[0], [0, 1]], 3, test=[[2], [1]])


def test_round_trip(corpus):
    assert corpus.info.documents == {"train": 2, "validation": 1, "test": 2}
    assert corpus.texts("train") == ["a text", "a text"]
    assert corpus.positives("test").toarray().tolist() == [[0, 0, 1], [0, 1, 0]]
    assert corpus.reciprocal("test").nnz == 0
    assert corpus.info.statistics.seen["test"] == 0.5
    counts = corpus.label_frequencies()
    assert (counts.tolist(), counts.dtype) == ([2, 1, 0], np.int64)
    # with the leak that of the test split, not the validation's label 0
    assert corpus.label_frequencies("train_and_test").tolist() == [2, 2, 1]


def test_a_corpus_with_former_names_is_read_and_has_the_digest_of_a_new_one(corpus):
    directory = corpus.directory
    digest = corpus_digest(directory)
    about = read_description(directory.info, "a test")
    about["statistics"]["mirrored"] = about["statistics"].pop("reciprocal")
    for split in ("validation", "test"):
        former = f"{split}.mirrored.npz"
        directory.reciprocal(split).rename(directory.root / former)
        about["digests"][former] = about["digests"].pop(f"{split}.reciprocal.npz")
    write_description(directory.info, about)
    stored = load_corpus(directory)
    assert corpus_digest(directory) == digest
    assert stored.info.statistics == corpus.info.statistics
    assert stored.reciprocal("test").nnz == 0
    (directory.root / "test.mirrored.npz").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"test\.mirrored\.npz: is not what was written"):
        stored.reciprocal("test")


@pytest.mark.parametrize("frequency", [5, 6])
def test_rare_labels_have_at_most_five_documents(tmp_path, frequency):
    train = [[0]] * frequency + [[1]]
    info = write(tmp_path, train, 2).info
    assert info.statistics.rare_labels == (1.0 if frequency == 5 else 0.5)


@pytest.mark.parametrize(
    ("train", "test", "text"),
    [
        ([], [[0]], "the train split has no documents"),
        ([[0], [1]], [], "the test split has no documents"),
        ([[0]], [[0]], "have 1 different labels; at least two"),
        ([[0], [1]], [[]], "the test documents have no labels"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path, train, test, text):
    with pytest.raises(DataError, match=text):
        write(tmp_path, train, 2, test)
    with pytest.raises(DataError, match=r"corpus\.json: no such file"):
        load_corpus(tmp_path)


@pytest.mark.parametrize(
    "path", ["labels.parquet", "train.parquet", "test.labels.npz", "corpus.json"]
)
def test_a_missing_file_is_named(corpus, path):
    (corpus.directory.root / path).unlink()
    with pytest.raises(DataError, match=f"{path}: no such file"):
        load_corpus(corpus.directory.root)


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("train.parquet", lambda c: c.documents("train")),
        ("labels.parquet", lambda c: c.labels),
        ("test.labels.npz", lambda c: c.positives("test")),
        ("test.reciprocal.npz", lambda c: c.reciprocal("test")),
    ],
)
def test_a_damaged_file_is_named(corpus, path, read, describe_anew):
    file = corpus.directory.root / path
    content = file.read_bytes()
    for at in range(0, len(content), 97):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DataError, match=f"{path}: is not what was written.*haste corpus"):
            read(corpus)
    file.write_bytes(content[:-20])
    with pytest.raises(DataError, match=f"{path}: is not what was written"):
        read(corpus)
    describe_anew(corpus.directory.info)
    with pytest.raises(DataError, match=f"{path}: not a"):
        read(load_corpus(corpus.directory))


@pytest.mark.parametrize(
    "changed",
    [
        {"documents": {"train": 2}},
        {"documents": {"train": 2, "validation": 1, "test": -1}},
        {"points": {"train": 2, "validation": 1, "test": 1, "more": 1}},
        {"n_labels": "2"},
        {"n_extra": -1},
        {"statistics": {}},
        {"statistics": []},
        {"licence": 1},
        {"unheard": 1},
    ],
)
def test_a_description_of_no_corpus_is_named(corpus, changed, describe_anew):
    describe_anew(corpus.directory.info, **changed)
    with pytest.raises(DataError, match=r"corpus\.json: not the description.*haste corpus"):
        load_corpus(corpus.directory)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_out_of_range_is_refused(corpus, split, describe_anew):
    path = corpus.directory.positives(split)
    arrays = dict(np.load(path))
    arrays["indices"][0] = 2**30
    np.savez(path, **arrays)
    describe_anew(corpus.directory.info)
    with pytest.raises(DataError, match=rf"{split}\.labels\.npz: not a sparse matrix"):
        load_corpus(corpus.directory).positives(split)


@pytest.mark.parametrize("text", ["{", "[]", '{"dataset": "tiny"}'])
def test_a_damaged_description_is_named(corpus, text):
    corpus.directory.info.write_text(text)
    with pytest.raises(DataError, match=r"corpus\.json: not"):
        load_corpus(corpus.directory)


def test_rows_that_do_not_match_are_refused(corpus, describe_anew):
    describe_anew(corpus.directory.info, documents={**corpus.info.documents, "train": 3})
    changed = load_corpus(corpus.directory)
    with pytest.raises(DataError, match=r"train\.parquet: has 2 rows, .* says 3"):
        changed.documents("train")
    with pytest.raises(DataError, match=r"has 2 rows and 3 columns, .* says 3 and 3"):
        changed.positives("train")


def test_a_training_document_with_an_extra_label_is_refused(corpus, describe_anew):
    describe_anew(corpus.directory.info)
    write_csr(corpus.directory.positives("train"), sp.csr_matrix([[1, 0, 0], [0, 0, 1.0]]))
    with pytest.raises(DataError, match="has label 2, but only the first 2 are trainable"):
        load_corpus(corpus.directory).positives("train")


def test_writing_that_is_cut_short_leaves_no_corpus(corpus, monkeypatch):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("haste.data.corpus.write_csr", disk_full)
    with pytest.raises(OSError, match="No space"):
        write(corpus.directory.root, [[0], [1]], 2)
    with pytest.raises(DataError, match=r"corpus\.json: no such file"):
        load_corpus(corpus.directory)


def write_features(folder, text):
    sizes = {"train": 2, "validation": 1, "test": 1}
    features = {s: sp.csr_matrix(np.full((n, 4), 0.5, np.float32)) for s, n in sizes.items()}
    texts = {s: [text] * n for s, n in sizes.items()}
    return write(folder, [[0], [0, 1]], 2, features=features, texts=texts)


def test_sparse_features_and_no_text(tmp_path):
    corpus = write_features(tmp_path, None)
    info = corpus.info
    assert (info.n_features, info.has_text, info.statistics.words_per_document) == (4, False, 0)
    assert corpus.documents("train")["uid"].to_pylist() == ["train0", "train1"]
    assert corpus.documents("train")["text"].null_count == 2
    with pytest.raises(DataError, match="tiny has no text, only sparse features"):
        corpus.texts("train")
    assert corpus.features("train").toarray().tolist() == [[0.5] * 4] * 2
    assert corpus.features("train").dtype == np.float32
    corpus.directory.features("test").unlink()
    with pytest.raises(DataError, match=r"test\.features\.npz: no such file"):
        load_corpus(tmp_path)


def test_sparse_features_beside_text(tmp_path):
    info = write_features(tmp_path, "a text").info
    assert (info.n_features, info.has_text, info.statistics.words_per_document) == (4, True, 2)


def test_documents_in_blocks_are_those_in_one(tmp_path):
    with CorpusWriter(tmp_path) as writer:
        for uid in ("a", "b"):
            writer.add("train", document_table([uid], ["a text"]))
    assert pq.read_table(writer.directory.documents("train"))["uid"].to_pylist() == ["a", "b"]


def test_a_corpus_of_text_has_no_features(corpus):
    assert (corpus.info.n_features, corpus.info.has_text) == (0, True)
    with pytest.raises(DataError, match="tiny has no sparse features"):
        corpus.features("train")


def test_a_description_from_before_there_were_features_and_digests_is_read(corpus, describe_anew):
    describe_anew(corpus.directory.info, n_features=None, has_text=None)
    assert load_corpus(corpus.directory).info == replace(corpus.info, digests={})
