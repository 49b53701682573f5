"""haste embed and haste group on a corpus of 40 labels."""

import logging

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from typer.testing import CliRunner

from haste.cli import app
from haste.config import GROUPINGS
from haste.data.corpus import load_corpus
from haste.errors import ConfigError
from haste.labels.order import LabelOrder
from haste.paths import TokenDir
from small_corpus import write_small_corpus

ENCODER = "bag-all-MiniLM-L6-v2-32"
N_LABELS = 40


@pytest.fixture
def corpus(tmp_path):
    """30 training documents; label j belongs to all documents i < 1 + j / 2 and to i = j - 10."""
    rows, columns = np.meshgrid(np.arange(30), np.arange(N_LABELS), indexing="ij")
    train = sp.csr_matrix(
        np.pad((rows < 1 + columns / 2) | (rows == columns - 10), ((0, 0), (0, 1))).astype(
            np.float32
        )
    )
    other = sp.csr_matrix(np.eye(5, N_LABELS + 1, k=N_LABELS - 4, dtype=np.float32))
    positives = {"train": train, "validation": other, "test": other}
    write_small_corpus(tmp_path / "corpus", positives, max_len=32)
    return tmp_path / "corpus"


def run(*arguments):
    """The command's result, its exceptions raised."""
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def group(corpus, order, out, *options):
    return run("group", "--corpus", corpus, "--order", order, "--out", out, *options)


def embed(corpus, tmp_path, *options):
    return run(
        *("embed", "--corpus", corpus, "--tokens", tmp_path / "t", "--model", tmp_path / "m"),
        *("--encoder", "bag", "--pooling", "cls", "--out", tmp_path / "embeddings.npy", *options),
    )


@pytest.fixture
def features(monkeypatch):
    """What the encoder is made to give for the training documents, and what it was asked for."""
    given = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    asked = []

    def encode_training_documents(*arguments, scratch, tick, **options):
        assert scratch.is_dir()
        tick(len(given))
        asked.append((*arguments, options))
        return given

    monkeypatch.setattr(
        "haste.encoders.features.encode_training_documents", encode_training_documents
    )
    return given, asked


def test_embed_averages_the_training_features_of_the_label_space(corpus, tmp_path, features):
    given, asked = features
    assert embed(corpus, tmp_path).exit_code == 0
    embeddings = np.load(tmp_path / "embeddings.npy")
    assert (embeddings.shape, embeddings.dtype) == ((N_LABELS, 6), np.float32)
    # label 0 has document 0; label 39 has documents 0 to 20, and 29
    train = given
    np.testing.assert_allclose(embeddings[0], train[0] / np.linalg.norm(train[0]), atol=1e-6)
    total = train[[*range(21), 29]].sum(axis=0)
    np.testing.assert_allclose(embeddings[39], total / np.linalg.norm(total), atol=1e-6)
    assert [(a[0], a[2], *a[4:]) for a in asked] == [
        ("bag", TokenDir(tmp_path / "t"), {"pooling": "cls", "device": torch.device("cpu")})
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("corpus", "embeddings.npy", "embeddings.npy.sum.json")
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_embed_refuses_a_gpu_that_is_not_there(corpus, tmp_path, features):
    with pytest.raises(ConfigError, match="cuda"):
        embed(corpus, tmp_path, "--device", "cuda")
    assert features[1] == []


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_group_writes_head_and_tail(corpus, tmp_path, grouping, caplog):
    vectors = np.eye(N_LABELS, 4, dtype=np.float32)
    np.save(tmp_path / "embeddings.npy", vectors)
    out = tmp_path / "labels" / "order.npz"
    with caplog.at_level(logging.INFO):
        result = group(
            corpus,
            f"{grouping}-h0.1-g16-train-{ENCODER}-s1",
            out,
            *("--embeddings", tmp_path / "embeddings.npy"),
        )
    assert result.exit_code == 0
    order = LabelOrder.load(out)
    assert (order.n_labels, order.head, order.group_size, order.n_groups) == (40, 16, 16, 2)
    frequencies = load_corpus(corpus).label_frequencies()[:N_LABELS]
    assert frequencies[order.labels[:16]].min() >= frequencies[order.labels[16:]].max()
    assert order.cohesion.shape == (2,)
    assert "40 labels: head 16, tail 24 in 2 groups of 16" in caplog.text
    assert f"mean cohesion of the {grouping} groups: {order.cohesion.mean():.4f}" in caplog.text


def test_group_without_embeddings_has_no_cohesion(corpus, tmp_path):
    group(corpus, f"random-h0-g32-train_and_test-{ENCODER}-s0", tmp_path / "order.npz")
    order = LabelOrder.load(tmp_path / "order.npz")
    assert (order.head, order.n_groups, order.cohesion.size) == (0, 2, 0)


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ("semantic-h0.1-g16-train-bag-m-32-s0", ConfigError, "'semantic' needs label embeddings"),
        (
            "semantics-h0.1-g16-train-bag-m-32-s0",
            ConfigError,
            r"order\.grouping: 'semantics' is not",
        ),
        ("random-h0.1-g17-train-bag-m-32-s0", ConfigError, r"order\.group_size: 17 is not allowed"),
        (
            "random-h1.5-g16-train-bag-m-32-s0",
            ConfigError,
            r"order\.head_ratio: 1\.5 is not allowed",
        ),
        ("random-h0.1.2-g16-train-bag-m-32-s0", ConfigError, "not the name of a label order, such"),
    ],
)
def test_group_refuses_and_writes_nothing(corpus, tmp_path, order, error, message):
    with pytest.raises(error, match=message):
        group(corpus, order, tmp_path / "order.npz")
    assert not (tmp_path / "order.npz").exists()
