"""Where precision comes from: contributions of labels from the most to the least frequent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.errors import DataError
from haste.evaluation.matching import hits

DECILES = 10


def label_deciles(train_frequency: np.ndarray) -> np.ndarray:
    """int64 [L + E]: 1 (the most frequent tenth of the labels) to 10, and 0 for unseen labels.

    Tenths hold equally many labels (the first ones one more where 10 does not divide their number);
    labels of equal frequency are told apart by id, the lower first.
    """
    order = np.argsort(-train_frequency.astype(np.int64), kind="stable")
    seen = order[train_frequency[order] > 0]
    deciles = np.zeros(train_frequency.shape[0], dtype=np.int64)
    for number, labels in enumerate(np.array_split(seen, DECILES), start=1):
        deciles[labels] = number
    return deciles


def decile_rows(
    ids: np.ndarray, truth: sp.csr_matrix, train_frequency: np.ndarray, ranks: Sequence[int]
) -> list[dict[str, Any]]:
    """Ten rows: decile, P@k (its part of P@k, in percentage points) for each of `ranks`, recall.

    The parts add up to P@k as long as no unseen label is predicted. `recall` is the share (in
    percent) of the decile's positives among all the predictions of their documents, ids [N, k];
    None for a decile without positives.

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
    found = np.where(hits(ids, truth), deciles[ids], 0)
    counts = {k: np.bincount(found[:, :k].ravel(), minlength=DECILES + 1) for k in ranks}
    recalled = np.bincount(found.ravel(), minlength=DECILES + 1)
    positives = np.bincount(deciles[truth.indices], minlength=DECILES + 1)
    documents = truth.shape[0]
    rows = []
    for number in range(1, DECILES + 1):
        row: dict[str, Any] = {"decile": number}
        for k in ranks:
            row[f"P@{k}"] = 100.0 * float(counts[k][number]) / (k * documents)
        total = positives[number]
        row["recall"] = 100.0 * float(recalled[number] / total) if total else None
        rows.append(row)
    return rows
