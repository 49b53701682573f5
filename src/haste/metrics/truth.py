"""What predictions of one split are held against, read from a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.data.corpus import Corpus, load_corpus
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
    """Read the truth of `validation` or `test`; raises DataError naming a missing or damaged file."""
    corpus = load_corpus(directory)
    return truth_of(corpus, split, corpus.label_frequencies())


def truth_of(corpus: Corpus, split: str, train_frequency: np.ndarray) -> Truth:
    """As `load_truth`, of an open corpus.

    Frequencies int64 [L + E] and propensities are of the training split alone, the constants A and B of
    corpus.json.
    """
    info = corpus.info
    return Truth(
        positives=corpus.positives(split),
        inverse_propensity=inverse_propensity(
            train_frequency, info.documents["train"], info.propensity_a, info.propensity_b
        ),
        train_frequency=train_frequency,
        reciprocal=corpus.reciprocal(split),
        filtered=info.filtered,
    )
