"""Runs on what is not the text of training documents: sparse features, and the labels' own texts."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from haste.data.corpus import load_corpus
from haste.data.tokens import load_tokens, tokenize
from haste.device import choose_device
from haste.errors import DataError
from haste.files import read_json
from haste.paths import SPLITS
from haste.predict import Predictor
from haste.training.run import train_and_evaluate
from small_corpus import write_small_corpus


def losses(run):
    with run.history.open() as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


def with_features(tiny):
    """The made-up data set again, with features (counts of words) for text."""
    corpus = load_corpus(tiny.corpus)
    tokens = load_tokens(tiny.tokens, tiny.corpus)
    features = {}
    for split in SPLITS:
        ragged = tokens.splits[split]
        counts = np.ones(len(ragged.values), np.float32)
        features[split] = sp.csr_matrix(
            (counts, np.array(ragged.values), np.array(ragged.offsets)),
            (len(ragged), tokens.info.vocab_size),
        )
        features[split].sum_duplicates()
        features[split].data *= 0.3
    write_small_corpus(
        tiny.root / "corpus",
        {split: corpus.positives(split) for split in SPLITS},
        texts={split: [None] * corpus.info.documents[split] for split in SPLITS},
        features=features,
    )
    made = replace(tiny, corpus=tiny.root / "corpus", tokens=tiny.root / "tokens")
    tokenize(load_corpus(made.corpus), made.model, 12, made.tokens)
    return made


LEARNS = {
    "training": {"epochs": 15, "learning_rate": 0.1},
    "encoder": {"learning_rate": 3e-3, "max_len": 12},
}


def test_sparse_features_train_and_learn(tiny):
    tiny = with_features(tiny)
    config = tiny.config(**LEARNS)
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    found = losses(run)
    assert found[-1] < 0.5 * found[0]
    assert read_json(run.metrics)["metrics"]["P@1"] > 25  # by chance 8%
    with pytest.raises(DataError, match="was trained on features, and cannot read texts"):
        Predictor(run, choose_device("cpu")).predict(["a text"], 1)
