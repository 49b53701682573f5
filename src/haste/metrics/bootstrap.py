"""Paired bootstrap: how sure a difference of two methods on the same documents is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from haste.errors import DataError

LEVEL = 0.95
"""share of the resampled differences inside the interval"""


class Interval(NamedTuple):
    """A difference and the interval around it, in the unit of the metric."""

    difference: float
    low: float
    high: float


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    n: int = 1000,
    seed: int = 0,
    *,
    paired_seeds: bool = False,
) -> Interval:
    """Mean of a - b, with the percentile interval (95%) over `n` resamples of seeds and documents.

    Each resample draws documents with replacement, the same for both methods, so what makes a document easy
    for both cancels; and seeds with replacement, the same for both where `paired_seeds`, else for each its
    own. A side of one seed adds none of the spread between seeds: with one on both sides this is the
    bootstrap over documents. Of S seeds the bootstrap sees (S - 1) / S of the variance between seeds.

    Args:
        a: float [S, N], a metric of each document (see `haste.metrics.metrics.per_document`) for each
            seed, or [N] for one.
        b: float [T, N] or [N], the other method's.
        n: number of resamples.
        seed: of the resamples; the same seed gives the same interval.
        paired_seeds: whether row s of a and row s of b are of the same seed; then S = T.

    Raises DataError where a and b are not the same documents' (or, where paired, seeds': shapes differ) or are
    empty or not finite.
    """
    a, b = (np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (a, b))
    comparable = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1] and a.size and b.size
    if not comparable or (paired_seeds and len(a) != len(b)):
        raise DataError(
            f"bootstrap: {list(a.shape)} and {list(b.shape)} values; both methods need one value for each "
            "of the same documents, and as many seeds where these are paired."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("bootstrap: a value is not a finite number.")
    sides = [a - b] if paired_seeds else [a, -b]
    rng = np.random.default_rng(seed)
    size = a.shape[1]
    means = np.empty(n)
    for i in range(n):
        # how often each document is drawn
        times = np.bincount(rng.integers(0, size, size), minlength=size)
        drawn = [rng.integers(0, len(side), len(side)) for side in sides]
        means[i] = sum((side @ times)[rows].mean() for side, rows in zip(sides, drawn, strict=True))
    tail = (1.0 - LEVEL) / 2
    low, high = np.quantile(means / size, [tail, 1.0 - tail])
    return Interval(float(a.mean() - b.mean()), float(low), float(high))
