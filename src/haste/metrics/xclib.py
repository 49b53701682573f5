"""Metrics by xclib (pyxclib), the tool of the Extreme Classification Repository, where it is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from haste.metrics.names import is_propensity_scored

FUNCTIONS = {
    "P": "precision",
    "PSP": "psprecision",
    "nDCG": "ndcg",
    "PSnDCG": "psndcg",
    "R": "recall",
}


def installed() -> bool:
    """Whether xclib can be imported."""
    return importlib.util.find_spec("xclib") is not None


def name() -> str:
    """The library with its version, as metrics.json has it."""
    return f"xclib {importlib.metadata.version('xclib')}"


def measure(
    metrics: Sequence[tuple[str, int]],
    ids: np.ndarray,
    truth: sp.csr_matrix,
    inverse_propensity: np.ndarray,
) -> list[float]:
    """Each metric (name without rank, rank), in percent; arguments as of `metrics.measure`.

    The input is ids in order, never a matrix of scores, which xclib sorts unstably where scores tie.
    """
    from xclib.evaluation import xc_metrics

    ranks: dict[str, int] = {}
    for kind, k in metrics:
        ranks[kind] = max(k, ranks.get(kind, 0))
    curves = {}
    for kind, k in ranks.items():
        weights = [inverse_propensity] if is_propensity_scored(kind) else []
        # xclib gives the truth one more, empty column, which is its padding
        padded = np.where(ids[:, :k] < 0, truth.shape[1], ids[:, :k])
        function = getattr(xc_metrics, FUNCTIONS[kind])
        curves[kind] = np.asarray(function(padded, truth, *weights, k=k, sorted=True), np.float64)
    return [100.0 * float(curves[kind][k - 1]) for kind, k in metrics]
