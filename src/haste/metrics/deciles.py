"""Where precision comes from: contributions of labels from the most to the least frequent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.errors import DataError
from haste.metrics.matching import hits

DECILES = 10


def label_deciles(train_frequency: np.ndarray) -> np.ndarray:
    """int64 [L + E]: decile of each label, 1 (the most frequent) to 10, and 0 for unseen labels.

    A decile holds a tenth of the training positives, not of the labels, as is usual in extreme
    classification: a tenth of the labels would have nearly all positives in it. Labels go from the
    most to the least frequent (equal ones by id) to the decile in which the middle of their
    positives lies, so a decile stays empty where one label is worth more than a tenth.
    """
    frequency = train_frequency.astype(np.int64)
    order = np.argsort(-frequency, kind="stable")
    order = order[frequency[order] > 0]
    reached = np.cumsum(frequency[order])
    deciles = np.zeros(frequency.shape[0], dtype=np.int64)
    if order.size:
        # in whole numbers: 10 x (reached - frequency / 2) / total
        middle = 2 * reached - frequency[order]
        deciles[order] = DECILES * middle // (2 * reached[-1]) + 1
    return deciles


def decile_part(
    ids: np.ndarray, truth: sp.csr_matrix, train_frequency: np.ndarray, k: int, first: int
) -> np.ndarray:
    """float64 [N], percent: what labels of the deciles from `first` on add to the P@k of each document.

    Its mean is the sum of P@k over these rows of `decile_rows`. Arguments as there.
    """
    top = ids[:, :k]
    counted = hits(top, truth) & (label_deciles(train_frequency)[top] >= first)
    return 100.0 * counted.sum(1) / k


def decile_rows(
    ids: np.ndarray, truth: sp.csr_matrix, train_frequency: np.ndarray, ranks: Sequence[int]
) -> list[dict[str, Any]]:
    """Ten rows: decile, labels (their number), P@k for each of `ranks`, recall.

    P@k is the decile's part of P@k, in percentage points; the parts add up to P@k as long as no
    unseen label is predicted. `recall` is the share, in percent, of the decile's positives found
    among all k predictions of their documents; None for a decile without positives.

    Args:
        ids: int [N, k], checked.
        truth: canonical CSR [N, L + E].
        train_frequency: int [L + E].
        ranks: the k of P@k.
    """
    if train_frequency.shape != (truth.shape[1],):
        raise DataError(
            f"evaluation: {list(train_frequency.shape)} label frequencies, "
            f"but the truth has {truth.shape[1]} labels."
        )
    deciles = label_deciles(train_frequency)
    # decile of each hit, 0 where there is none
    decile_of_hit = np.where(hits(ids, truth), deciles[ids], 0)
    counts = {k: np.bincount(decile_of_hit[:, :k].ravel(), minlength=DECILES + 1) for k in ranks}
    recalled = np.bincount(decile_of_hit.ravel(), minlength=DECILES + 1)
    sizes = np.bincount(deciles, minlength=DECILES + 1)
    positives = np.bincount(deciles[truth.indices], minlength=DECILES + 1)
    documents = truth.shape[0]
    rows = []
    for number in range(1, DECILES + 1):
        row: dict[str, Any] = {"decile": number, "labels": int(sizes[number])}
        for k in ranks:
            row[f"P@{k}"] = 100.0 * float(counts[k][number]) / (k * documents)
        total = positives[number]
        row["recall"] = 100.0 * float(recalled[number] / total) if total else None
        rows.append(row)
    return rows
