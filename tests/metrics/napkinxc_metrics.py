"""napkinxc as a judge of our metrics: the same arguments as `haste.metrics.metrics.measure`.

napkinxc wants lists of ids: an int matrix is taken for scores, -1 for a label, and score matrices are
sorted unstably where scores tie. It drops from the ideal the labels that its propensities do not reach,
and stops silently at the shorter of truth and predictions.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from napkinxc import metrics as library

CLASSES = {
    "P": "PrecisionAtK",
    "PSP": "PSPrecisionAtK",
    "nDCG": "NDCGAtK",
    "PSnDCG": "PSNDCGAtK",
    "R": "RecallAtK",
}


def measure(
    metrics: list[tuple[str, int]],
    ids: np.ndarray,
    truth: sp.csr_matrix,
    inverse_propensity: np.ndarray,
) -> list[float]:
    positives = [row.indices.tolist() for row in truth]
    found = []
    for kind, k in metrics:
        weights = [inverse_propensity] if kind.startswith("PS") else []
        total = getattr(library, CLASSES[kind])(*weights, k=k)
        total.accumulate(positives, [row[row >= 0].tolist() for row in ids[:, :k]])
        found.append(100.0 * total.summarize()[k - 1])
    return found
