"""P@k, PSP@k, nDCG@k, PSnDCG@k and R@k of ranked predictions, in percent.

`evaluate` takes the numbers of metrics.json from the libraries of `haste.evaluation.backends`, where
the definitions are. `per_document` and `quick_metrics` are the same definitions in numpy, for
intervals and for the look at the validation split after each epoch; tests hold both to `evaluate`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.errors import ConfigError, DataError, suggest
from haste.evaluation.backends import Backend, choose_backend
from haste.evaluation.deciles import decile_rows
from haste.evaluation.filters import remove_positives, remove_predictions
from haste.evaluation.matching import binary, check_order, check_predictions, check_truth, hits

RANKS = (1, 3, 5)
RECALL_RANKS = (10, 100)
MAX_RANK = max(RECALL_RANKS)
METRICS = (
    *(f"{name}@{k}" for name in ("P", "PSP", "nDCG", "PSnDCG") for k in RANKS),
    *(f"R@{k}" for k in RECALL_RANKS),
)


def evaluate(
    ids: np.ndarray,
    scores: np.ndarray,
    truth: sp.csr_matrix,
    inverse_propensity: np.ndarray,
    train_frequency: np.ndarray,
    mirrored: sp.csr_matrix | None = None,
    *,
    filtered: bool = False,
    backend: Backend | None = None,
) -> dict[str, Any]:
    """The content of metrics.json, in percent and free of NaN.

    `without_mirrored` is P@k without mirrored pairs: the pairs (i, j) of `mirrored` leave the truth,
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
        mirrored: CSR [N, L + E], or None.
        filtered: the pairs of `mirrored` leave the predictions, not the truth, in all metrics: what
            is published for data sets that come with a list of reciprocal pairs is measured so.
        backend: the metric library; None for xclib where it is installed, else napkinxc.

    Raises:
        DataError: shapes do not fit, predictions are out of range, repeated or out of order,
            there is no positive at all, or pairs to be filtered are not given.
    """
    backend = backend or choose_backend()
    truth = _checked(ids, truth, inverse_propensity, MAX_RANK)
    check_order(ids, scores)
    if filtered:
        if mirrored is None:
            raise DataError("evaluation: there is no matrix of pairs to filter the predictions by.")
        ids = remove_predictions(ids, mirrored)
    ranks = dict.fromkeys(("P", "PSP", "nDCG", "PSnDCG"), max(RANKS)) | {"R": MAX_RANK}
    curves = {
        kind: backend.curve(kind, ids, truth, k, inverse_propensity) for kind, k in ranks.items()
    }
    metrics = {}
    for name in METRICS:
        kind, k = _parse(name)
        metrics[name] = _at(curves[kind], k)
    without = None
    if mirrored is not None:
        without = _without(ids, truth, mirrored, inverse_propensity, backend)
    return {
        "metrics": metrics,
        "without_mirrored": without,
        "deciles": decile_rows(ids, truth, train_frequency, RANKS),
        "filtered": filtered,
        "backend": backend.name,
        "documents": int(truth.shape[0]),
        "k": int(ids.shape[1]),
    }


def quick_metrics(
    ids: np.ndarray, truth: sp.csr_matrix, inverse_propensity: np.ndarray
) -> dict[str, float]:
    """P@1, P@5 and PSP@5 in percent, as `evaluate` gives them, from ids [N, at least 5]."""
    return {
        name: float(per_document(name, ids, truth, inverse_propensity).mean())
        for name in ("P@1", "P@5", "PSP@5")
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
    weighted = kind.startswith("PS")
    if weighted and inverse_propensity is None:
        raise DataError(f"evaluation: {metric} needs the inverse propensities.")
    truth = _checked(ids, truth, inverse_propensity if weighted else None, k)
    gains = hits(ids[:, :k], truth).astype(np.float64)
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
    if not weighted:
        return 100.0 * (gains @ discounts) / best
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


def _without(
    ids: np.ndarray,
    truth: sp.csr_matrix,
    pairs: sp.csr_matrix,
    inverse_propensity: np.ndarray,
    backend: Backend,
) -> dict[str, float] | None:
    left = remove_positives(truth, pairs)
    kept = np.flatnonzero(np.diff(left.indptr))
    if not kept.size:
        return None
    ranked = remove_predictions(ids, pairs)[kept]
    curve = backend.curve("P", ranked, left[kept], max(RANKS), inverse_propensity)
    return {f"P@{k}": _at(curve, k) for k in RANKS}


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
    match = re.fullmatch(r"(P|PSP|nDCG|PSnDCG|R)@([1-9][0-9]*)", metric)
    if not match:
        raise ConfigError(f"evaluation: there is no metric {metric!r}.{suggest(metric, METRICS)}")
    return match[1], int(match[2])


def _at(curve: np.ndarray, k: int) -> float:
    return 100.0 * float(curve[k - 1])
