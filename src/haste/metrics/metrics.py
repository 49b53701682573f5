"""P@k, PSP@k, nDCG@k, PSnDCG@k and R@k of ranked predictions, in percent.

The definitions are those of the Extreme Classification Repository (whose tool xclib is):

* P@k, mean over all documents of hits / k. A document without positives counts as 0, here and below.
* nDCG@k, DCG over that of min(k, positives) hits at the top, mean over documents.
* PSP@k and PSnDCG@k, hits weighted by inverse propensity; the mean over documents is divided by the
  mean that the best possible ranking reaches (a ratio of means, not a mean of ratios). PSnDCG
  divides each document by the DCG of min(k, positives) hits.
* R@k, hits / positives, mean over documents. (`recall_at_k` of xclib leaves out documents without
  positives; its `recall` counts them as 0.)

`evaluate` has xclib compute them where it is installed; otherwise they are the means of `per_document`,
which the bootstrap resamples. Tests hold both to each other, to values that xclib gave, and to napkinxc.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.errors import ConfigError, DataError, suggest
from haste.metrics import xclib
from haste.metrics.deciles import decile_rows
from haste.metrics.filters import remove_positives, remove_predictions
from haste.metrics.matching import binary, check_order, check_predictions, check_truth, hits
from haste.metrics.names import (
    KINDS,
    MAX_RANK,
    METRICS,
    RANKS,
    VALIDATED,
    is_propensity_scored,
)


def evaluate(
    ids: np.ndarray,
    scores: np.ndarray,
    truth: sp.csr_matrix,
    inverse_propensity: np.ndarray,
    train_frequency: np.ndarray,
    reciprocal: sp.csr_matrix | None = None,
    *,
    filtered: bool = False,
) -> dict[str, Any]:
    """The content of metrics.json, in percent and free of NaN.

    `without_reciprocal_pairs` is P@k without reciprocal pairs: the pairs (i, j) of `reciprocal` leave the truth,
    and label j leaves document i's predictions, where the next best moves up (hence 100 predictions
    are kept). Documents left without a positive are dropped from this mean; it is None when there is
    no matrix, or no document is left.

    Args:
        ids: int [N, 100] label ids, best first, -1 where there are fewer.
        scores: float [N, 100]; only their order is used, ties stay as they lie.
        truth: CSR [N, L + E]; the E last columns are labels without a training document. They
            count in recall and in the ideals of nDCG and PSP.
        inverse_propensity: float64 [L + E].
        train_frequency: int [L + E], training documents of each label.
        reciprocal: CSR [N, L + E], or None.
        filtered: the pairs of `reciprocal` leave the predictions, not the truth, in all metrics: what
            is published for data sets that come with a list of reciprocal pairs is measured so.

    Raises:
        DataError: shapes do not fit, predictions are out of range, repeated or out of order,
            there is no positive at all, or pairs to be filtered are not given.
    """
    truth = _checked(ids, truth, inverse_propensity, MAX_RANK)
    check_order(ids, scores)
    if filtered:
        if reciprocal is None:
            raise DataError("evaluation: there is no matrix of pairs to filter the predictions by.")
        ids = remove_predictions(ids, reciprocal)
    without = None
    if reciprocal is not None:
        without = _without(ids, truth, reciprocal, inverse_propensity)
    return {
        "metrics": _measure(METRICS, ids, truth, inverse_propensity),
        "without_reciprocal_pairs": without,
        "deciles": decile_rows(ids, truth, train_frequency, RANKS),
        "filtered": filtered,
        "backend": xclib.name() if xclib.installed() else "haste",
        "documents": int(truth.shape[0]),
        "k": int(ids.shape[1]),
    }


def quick_metrics(
    ids: np.ndarray, truth: sp.csr_matrix, inverse_propensity: np.ndarray
) -> dict[str, float]:
    """VALIDATED in percent, as `evaluate` gives them, from ids [N, at least 5]."""
    return {
        name: float(per_document(name, ids, truth, inverse_propensity).mean()) for name in VALIDATED
    }


def per_document(
    metric: str,
    ids: np.ndarray,
    truth: sp.csr_matrix,
    inverse_propensity: np.ndarray | None = None,
) -> np.ndarray:
    """What each document contributes to a metric, float64 [N]; its mean is `evaluate`'s number.

    PSP and PSnDCG are ratios of means over the data set: a document's numerator is divided by the
    mean of the ideals of all documents, so it can exceed 100, and a difference of two methods over
    the same documents has the same denominator.

    Args:
        metric: "P@k", "PSP@k", "nDCG@k", "PSnDCG@k" or "R@k", for any k from 1.
        ids: int [N, at least k].
        truth: CSR [N, L + E].
        inverse_propensity: float64 [L + E]; needed by PSP and PSnDCG.

    Raises:
        ConfigError: no such metric. DataError: as `evaluate`.
    """
    kind, k = _parse(metric)
    weighted = is_propensity_scored(kind)
    if weighted and inverse_propensity is None:
        raise DataError(f"evaluation: {metric} needs the inverse propensities.")
    truth = _checked(ids, truth, inverse_propensity if weighted else None, k)
    return _contributions(kind, k, hits(ids[:, :k], truth), ids, truth, inverse_propensity)


def measure(
    metrics: Sequence[tuple[str, int]],
    ids: np.ndarray,
    truth: sp.csr_matrix,
    inverse_propensity: np.ndarray,
) -> list[float]:
    """Each metric (name without rank, rank), in percent, of checked predictions.

    Args:
        metrics: such as ("P", 5).
        ids: int [N, at least the largest rank], best first, -1 where there are fewer.
        truth: canonical CSR [N, L + E] of ones with at least one positive.
        inverse_propensity: float64 [L + E].
    """
    is_hit = hits(ids[:, : max(k for _, k in metrics)], truth)
    return [
        float(_contributions(kind, k, is_hit, ids, truth, inverse_propensity).mean())
        for kind, k in metrics
    ]


def _contributions(
    kind: str,
    k: int,
    is_hit: np.ndarray,
    ids: np.ndarray,
    truth: sp.csr_matrix,
    inverse_propensity: np.ndarray | None,
) -> np.ndarray:
    """float64 [N], percent; `is_hit` is bool [N, at least k]."""
    gains = is_hit[:, :k].astype(np.float64)
    positives = np.diff(truth.indptr)
    if kind == "P":
        return 100.0 * gains.sum(axis=1) / k
    if kind == "R":
        return 100.0 * gains.sum(axis=1) / np.maximum(positives, 1)
    discounts = 1.0 / np.log2(np.arange(2, k + 2)) if kind.endswith("nDCG") else np.ones(k)
    if kind.endswith("nDCG"):
        best = np.cumsum(discounts)[np.clip(positives, 1, k) - 1]
    else:
        best = np.full(len(gains), float(k))
    if not is_propensity_scored(kind):
        return 100.0 * (gains @ discounts) / best
    # callers see to it for these metrics
    assert inverse_propensity is not None
    # ids of -1 read the last label's weight, times a gain of 0
    reached = ((gains * inverse_propensity[ids[:, :k]]) @ discounts) / best
    ideal = (_ideal_gains(truth, inverse_propensity, k) @ discounts) / best
    return 100.0 * reached / ideal.mean()


def _ideal_gains(truth: sp.csr_matrix, weights: np.ndarray, k: int) -> np.ndarray:
    """float64 [N, k]: the k largest weights of each document's positives, falling, then zeros."""
    rows = np.repeat(np.arange(truth.shape[0]), np.diff(truth.indptr))
    values = weights[truth.indices]
    order = np.lexsort((-values, rows))
    places = np.arange(truth.nnz) - truth.indptr[rows]
    kept = places < k
    ideal = np.zeros((truth.shape[0], k))
    ideal[rows[kept], places[kept]] = values[order][kept]
    return ideal


def _measure(
    names: Sequence[str], ids: np.ndarray, truth: sp.csr_matrix, inverse_propensity: np.ndarray
) -> dict[str, float]:
    """Percent by name, by xclib where it is installed."""
    library = xclib.measure if xclib.installed() else measure
    values = library([_parse(name) for name in names], ids, truth, inverse_propensity)
    return dict(zip(names, values, strict=True))


def _without(
    ids: np.ndarray, truth: sp.csr_matrix, pairs: sp.csr_matrix, inverse_propensity: np.ndarray
) -> dict[str, float] | None:
    left = remove_positives(truth, pairs)
    kept = np.flatnonzero(np.diff(left.indptr))
    if not kept.size:
        return None
    ranked = remove_predictions(ids, pairs)[kept]
    return _measure([f"P@{k}" for k in RANKS], ranked, left[kept], inverse_propensity)


def _checked(
    ids: np.ndarray, truth: sp.csr_matrix, inverse_propensity: np.ndarray | None, k: int
) -> sp.csr_matrix:
    truth = binary(truth)
    check_truth(truth)
    check_predictions(ids, truth, k)
    if inverse_propensity is not None and inverse_propensity.shape != (truth.shape[1],):
        raise DataError(
            f"evaluation: {list(inverse_propensity.shape)} inverse propensities, "
            f"but the truth has {truth.shape[1]} labels."
        )
    return truth


def _parse(metric: str) -> tuple[str, int]:
    match = re.fullmatch(rf"({'|'.join(KINDS)})@([1-9][0-9]*)", metric)
    if not match:
        raise ConfigError(f"evaluation: there is no metric {metric!r}.{suggest(metric, METRICS)}")
    return match[1], int(match[2])
