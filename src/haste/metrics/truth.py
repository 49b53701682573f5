"""What predictions of one split are held against, read from a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.data.corpus import load_corpus
from haste.labels.frequency import label_frequencies
from haste.metrics.metrics import evaluate
from haste.metrics.propensity import inverse_propensity
from haste.paths import CorpusDir


@dataclass(frozen=True)
class Truth:
    """The positives of a split and what is known of its labels from training."""

    positives: sp.csr_matrix
    """[N, L + E]"""
    inverse_propensity: np.ndarray
    """float64 [L + E]"""
    train_frequency: np.ndarray
    """int64 [L + E]"""
    reciprocal: sp.csr_matrix
    """[N, L + E]"""
    filtered: bool
    """those pairs leave the predictions before any metric is taken"""

    def evaluate(self, ids: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
        """The content of metrics.json for predictions [N, 100], see `haste.metrics.metrics.evaluate`."""
        return evaluate(
            ids,
            scores,
            self.positives,
            self.inverse_propensity,
            self.train_frequency,
            self.reciprocal,
            filtered=self.filtered,
        )


def load_truth(directory: CorpusDir | Path | str, split: str) -> Truth:
    """Read the truth of `validation` or `test`; raises DataError naming a missing or damaged file.

    Frequencies and propensities come from the training split alone, the constants A and B from
    corpus.json.
    """
    corpus = load_corpus(directory)
    frequency = label_frequencies(corpus.directory)
    return Truth(
        positives=corpus.positives(split),
        inverse_propensity=inverse_propensity(
            frequency,
            corpus.info.documents["train"],
            corpus.info.propensity_a,
            corpus.info.propensity_b,
        ),
        train_frequency=frequency,
        reciprocal=corpus.reciprocal(split),
        filtered=corpus.info.filtered,
    )
