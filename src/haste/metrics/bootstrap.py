"""Paired bootstrap: how sure a difference of two methods on the same documents is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from haste.errors import ConfigError, DataError


class Interval(NamedTuple):
    """A difference and the interval around it, in the unit of the metric."""

    difference: float
    low: float
    high: float


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean of a - b over documents, with the percentile interval over `n` resamples of documents.

    Both methods are resampled together, so what makes a document easy for both cancels.

    Args:
        a: float [N], a metric of each document (see `haste.metrics.metrics.per_document`);
            for several seeds of a method, their mean a document.
        b: float [N], the other method's.
        n: number of resamples.
        seed: of the resamples; the same seed gives the same interval.
        level: share of the resampled differences inside the interval, such as 0.95.

    Raises:
        DataError: a and b are not the same documents' (shapes differ) or are empty or not finite.
        ConfigError: n is below 1 or level is not between 0 and 1.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise DataError(
            f"bootstrap: {list(a.shape)} and {list(b.shape)} values; "
            "both methods need one value for each of the same documents."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("bootstrap: a value is not a finite number.")
    if n < 1 or not 0 < level < 1:
        raise ConfigError(
            f"bootstrap: n = {n}, level = {level}; n must be at least 1, level in (0, 1)."
        )
    differences = a - b
    rng = np.random.default_rng(seed)
    size = differences.size
    means = np.array([differences[rng.integers(0, size, size)].mean() for _ in range(n)])
    tail = (1.0 - level) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(differences.mean()), float(low), float(high))
