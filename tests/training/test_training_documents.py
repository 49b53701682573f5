"""Runs on what is not the text of training documents: sparse features, and the labels' own texts."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from haste.data.corpus import CorpusWriter, document_table, label_table, load_corpus
from haste.data.tokenize import load_tokens, tokenize
from haste.device import choose_device
from haste.errors import DataError
from haste.files import read_json
from haste.paths import SPLITS
from haste.predict import Predictor
from haste.training.loop import Trainer
from haste.training.run import train_and_evaluate


def losses(run):
    with run.history.open() as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


def rewritten(tiny, *, text=True, augment_with_label_text=None, opaque=False):
    """The made-up data set again: with features (counts of words) for text, or texts of labels."""
    corpus = load_corpus(tiny.corpus)
    tokens = load_tokens(tiny.tokens, tiny.corpus)
    width = corpus.info.n_labels + corpus.info.n_extra
    features = {}
    with CorpusWriter(tiny.root / "corpus") as writer:
        for split in SPLITS:
            documents = corpus.documents(split)
            writer.add(
                split,
                documents if text else document_table(documents["uid"], [None] * len(documents)),
            )
            ragged = tokens.splits[split]
            counts = np.ones(len(ragged.values), np.float32)
            features[split] = sp.csr_matrix(
                (counts, np.array(ragged.values), np.array(ragged.offsets)),
                (len(ragged), tokens.info.vocab_size),
            )
            features[split].sum_duplicates()
            features[split].data *= 0.3
        writer.finish(
            {split: corpus.positives(split) for split in SPLITS},
            {split: corpus.mirrored(split) for split in ("validation", "test")},
            label_table(
                corpus.labels["uid"],
                corpus.labels["name"],
                augment_with_label_text or [None] * width,
                40,
            ),
            None if text else features,
            dataset="tiny",
            propensity_a=0.55,
            propensity_b=1.5,
            opaque_labels=opaque,
            max_len=12,
            licence="none",
            source={},
        )
    made = replace(tiny, corpus=tiny.root / "corpus", tokens=tiny.root / "tokens")
    tokenize(load_corpus(made.corpus), made.model, 12, made.tokens)
    return made


LEARNS = {
    "training": {"epochs": 15, "learning_rate": 0.1},
    "encoder": {"learning_rate": 3e-3, "max_len": 12},
}


def test_sparse_features_train_and_learn(tiny):
    tiny = rewritten(tiny, text=False)
    config = tiny.config(**LEARNS)
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    found = losses(run)
    assert found[-1] < 0.5 * found[0]
    assert read_json(run.metrics)["metrics"]["P@1"] > 25  # by chance 8%
    with pytest.raises(DataError, match="was trained on sparse features of tiny, and cannot read"):
        Predictor(run, choose_device("cpu"))


def test_label_texts_are_training_documents_where_asked_for(tiny, monkeypatch):
    tiny = rewritten(tiny, augment_with_label_text=[f"w{i:02d}" for i in range(43)])
    seen = []
    monkeypatch.setattr(Trainer, "step", lambda self, rows: seen.append((self, rows)) or stop())

    class Stop(Exception):
        pass

    def stop():
        raise Stop

    for asked in (False, True):
        config = tiny.config(training={"augment_with_label_text": asked})
        with pytest.raises(Stop):
            train_and_evaluate(config, tiny.run_dir(f"run{asked}", config))
    (without, _), (trainer, _) = seen
    assert (len(without.tokens), len(trainer.tokens)) == (150, 190)
    assert trainer.total_steps == 2 * 12  # 190 documents in batches of 16, not 150
    assert trainer.tokens[157].tolist() == [2, 4 + 7, 3]  # the text of label 7, w07
    assert trainer.labels[157].indices.tolist() == [7]
    np.testing.assert_array_equal(trainer.tokens[149], without.tokens[149])
    assert (trainer.labels[:150] != without.labels).nnz == 0


def test_label_texts_teach_their_labels(tiny):
    tiny = rewritten(tiny, augment_with_label_text=[f"w{i:02d}" for i in range(43)])
    config = tiny.config(
        **{**LEARNS, "training": {**LEARNS["training"], "augment_with_label_text": True}}
    )
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    assert losses(run)[-1] < 0.5 * losses(run)[0]


@pytest.mark.parametrize(
    ("opaque", "message"),
    [
        (True, r"training\.augment_with_label_text: the labels of tiny are opaque ids"),
        (False, r"training\.augment_with_label_text: these tokens have no label texts"),
    ],
)
def test_label_texts_that_may_not_be_used_or_are_not_there(tiny, opaque, message):
    tiny = rewritten(tiny, opaque=opaque)
    config = tiny.config(training={"augment_with_label_text": True})
    with pytest.raises(DataError, match=message):
        train_and_evaluate(config, tiny.run_dir("run", config))
