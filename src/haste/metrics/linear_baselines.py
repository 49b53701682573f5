"""Rows that need no neural network: label popularity, and TF-IDF with the label trees of omikuji.

They leave the files of a trained run (without history.csv), measured the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from haste.checksums import write_description
from haste.data.corpus import Corpus
from haste.errors import ConfigError, suggest
from haste.files import write_yaml
from haste.grid import DEFAULT_VARIANT
from haste.labels.frequency import count_labels
from haste.metrics.label_trees import Documents, LabelTrees
from haste.metrics.metrics import MAX_RANK
from haste.metrics.runs import write_predictions
from haste.metrics.truth import truth_of
from haste.paths import RunDir
from haste.resources import Meter
from haste.run_lock import locked
from haste.runs import IDENTITY, claim, corpus_digest, remove_results

BASELINES = ("omikuji", "popularity")

log = logging.getLogger(__name__)


class Popularity:
    """The most frequent labels, the same for every document; ties by id, the lower first."""

    def __init__(self, frequency: np.ndarray) -> None:
        """`frequency`: int [L + E], training documents of each label; those with none are never predicted."""
        order = np.argsort(-frequency, kind="stable")
        self._ranked = order[frequency[order] > 0]
        self._frequency = frequency
        self.parameters = int(self._ranked.size)
        """a count a label"""
        self.model_bytes = int(frequency.nbytes)

    def predict(self, documents: Documents, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Label ids int32 [N, k] and their counts float32 [N, k], best first, -1 padded."""
        best = self._ranked[:k]
        number = documents.shape[0] if hasattr(documents, "shape") else len(documents)
        ids = np.full((number, k), -1, dtype=np.int32)
        scores = np.full((number, k), -1.0, dtype=np.float32)
        ids[:, : best.size] = best
        scores[:, : best.size] = self._frequency[best]
        return ids, scores


def run_baseline(name: str, corpus: Corpus, out: RunDir, seed: int, threads: int) -> dict[str, Any]:
    """Train a baseline on the training split, write its run folder, return its metrics.

    Popularity repeats to the last digit. omikuji does not: it has no seed (its clustering and its
    solver draw from the system), so `seed` only names the run.

    Raises:
        ConfigError: `name` is not in BASELINES, or `threads` is below 1.
        DataError: a file of the corpus is missing or damaged, or no training document is usable.
    """
    if name not in BASELINES:
        raise ConfigError(f"baseline: there is no {name!r}.{suggest(name, BASELINES)}")
    if threads < 1:
        raise ConfigError(f"baseline: {threads} threads; at least 1 is needed.")
    config = {
        "dataset": corpus.info.dataset,
        "method": name,
        "variant": DEFAULT_VARIANT,
        "seed": seed,
        "inputs": {"corpus": str(corpus.directory.root)},
    }
    with locked(out.root):
        claim(out, config)
        return _run_baseline(config, corpus, out, threads)


def _run_baseline(
    config: Mapping[str, Any], corpus: Corpus, out: RunDir, threads: int
) -> dict[str, Any]:
    name, meter = config["method"], Meter(device="cpu")
    trained_from = {"config": config, "inputs": corpus_digest(corpus.directory)}
    with meter.phase("setup"):
        read = corpus.texts if corpus.info.has_text else corpus.features
        documents = {split: read(split) for split in ("train", "test")}
        positives = corpus.positives("train")
        truth = truth_of(corpus, "test", count_labels(positives))
    log.info(
        "%s on %s: %d training documents", name, corpus.info.dataset, corpus.info.documents["train"]
    )
    with meter.phase("train"):
        model: Popularity | LabelTrees
        if name == "popularity":
            model = Popularity(truth.train_frequency)
        else:
            model = LabelTrees(documents["train"], positives, threads)
    with meter.phase("evaluate"):
        ids, scores = model.predict(documents["test"], MAX_RANK)
        metrics = truth.evaluate(ids, scores)
    resources = meter.resources(
        parameters=model.parameters,
        layer_bytes=model.model_bytes,
        state_bytes=model.model_bytes,
        steps=0,
        epoch_seconds=[],
        threads=threads,
    )
    # a workflow made it beforehand; writing it again would make every output look stale
    if not out.config.exists():
        write_yaml(out.config, config)
    remove_results(out)
    write_predictions(out, ids, scores)
    write_description(out.resources, {**resources, IDENTITY: trained_from})
    write_description(out.metrics, metrics)
    return metrics
