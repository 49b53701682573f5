"""What predictions of one split are held against, read from a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.errors import DataError
from haste.evaluation.metrics import evaluate
from haste.evaluation.propensity import inverse_propensity
from haste.files import read_csr, read_json
from haste.labels.frequency import label_frequencies, n_train
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
    mirrored: sp.csr_matrix | None
    """[N, L + E]; None where the corpus has no such file"""

    def evaluate(self, ids: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
        """The content of metrics.json for predictions [N, 100], see `haste.evaluation.metrics.evaluate`."""
        return evaluate(
            ids,
            scores,
            self.positives,
            self.inverse_propensity,
            self.train_frequency,
            self.mirrored,
        )


def load_truth(corpus: CorpusDir, split: str) -> Truth:
    """Read the truth of `validation` or `test`; raises DataError naming a missing or damaged file.

    Frequencies and propensities come from the training split alone, the constants A and B from
    corpus.json.
    """
    info = read_json(corpus.info)
    missing = {"propensity_a", "propensity_b"} - set(info)
    if missing:
        raise DataError(
            f"{corpus.info}: {', '.join(sorted(missing))} missing. Delete it and run haste corpus again."
        )
    frequency = label_frequencies(corpus)
    positives = read_csr(corpus.positives(split))
    mirrored = corpus.mirrored(split)
    return Truth(
        positives=positives,
        inverse_propensity=inverse_propensity(
            frequency, n_train(corpus), info["propensity_a"], info["propensity_b"]
        ),
        train_frequency=frequency,
        mirrored=read_csr(mirrored) if mirrored.exists() else None,
    )
