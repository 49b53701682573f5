import numpy as np
import pytest
import scipy.sparse as sp

from haste.checksums import write_beside
from haste.errors import DataError
from haste.labels import embed
from haste.labels.embed import label_embeddings, load_embeddings


def csr(rows):
    return sp.csr_matrix(np.array(rows, np.float32))


def test_by_hand():
    features = np.array([[3, 0], [0, 4], [0, -4]], np.float32)
    # label 0: documents 0 and 1; label 1: document 0; label 2: two that cancel out; label 3: none
    labels = csr([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]])
    embeddings = label_embeddings(features, labels)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, [[0.6, 0.8], [1, 0], [0, 0], [0, 0]], atol=1e-7)


def test_equals_a_naive_loop_across_blocks(monkeypatch):
    monkeypatch.setattr(embed, "BLOCK", 7)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 5)).astype(np.float32)
    labels = csr(rng.random((40, 23)) < 0.2)
    embeddings = label_embeddings(features, labels)
    for label in range(23):
        documents = labels[:, label].nonzero()[0]
        mean = features[documents].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(embeddings[label], mean / np.linalg.norm(mean), atol=1e-6)


def test_embeddings_and_features_may_lie_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "BLOCK", 7)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 5)).astype(np.float32)
    labels = csr(rng.random((40, 23)) < 0.2)
    np.save(tmp_path / "features.npy", features)
    out = np.lib.format.open_memmap(tmp_path / "e.npy", mode="w+", dtype=np.float32, shape=(23, 5))
    label_embeddings(np.load(tmp_path / "features.npy", mmap_mode="r"), labels, out)
    expected = label_embeddings(features, labels)
    np.testing.assert_array_equal(load_embeddings(tmp_path / "e.npy", 23), expected)


def test_refuses_features_of_another_corpus():
    with pytest.raises(DataError, match="features of 2 documents, but the training labels have 3"):
        label_embeddings(np.ones((2, 4), np.float32), csr(np.ones((3, 5))))


def test_refuses_features_that_are_not_finite():
    with pytest.raises(DataError, match="not finite"):
        label_embeddings(np.array([[np.nan, 1]], np.float32), csr([[1]]))


def test_load_takes_what_was_written(tmp_path):
    path = tmp_path / "embeddings.npy"
    written = np.array([[0.6, 0.8], [0, 0]], np.float32)
    np.save(path, written)
    np.testing.assert_array_equal(load_embeddings(path, 2), written)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.eye(3, dtype=np.float32), r"float32 \[3, 3\] is not float32 \[2, H\]"),
        (np.eye(2), r"float64 \[2, 2\] is not"),
        (np.array([[1, 0], [0, 2]], np.float32), "label 1 has length 2, not 1 or 0"),
        (np.array([[np.nan, 0], [0, 1]], np.float32), "label 0 has length nan"),
        (np.array([{}, {}]), r"embeddings\.npy: not label embeddings"),
    ],
)
def test_load_refuses(tmp_path, array, message):
    path = tmp_path / "embeddings.npy"
    np.save(path, array)
    with pytest.raises(DataError, match=message):
        load_embeddings(path, 2)


def test_load_holds_embeddings_to_their_digest(tmp_path):
    path = tmp_path / "embeddings.npy"
    np.save(path, np.eye(2, dtype=np.float32))
    write_beside(path)
    content = path.read_bytes()
    for at in range(0, len(content), 5):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(
            DataError, match=r"embeddings\.npy: is not what was written.*haste embed"
        ):
            load_embeddings(path, 2)
