"""Checked predictions and truth, and which predictions are in the truth."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from haste.errors import DataError


def binary(matrix: sp.spmatrix) -> sp.csr_matrix:
    """A copy [N, L + E] in canonical form with float64 ones.

    xclib weighs positives by their value, so it sees nothing else.
    """
    clean = sp.csr_matrix(matrix, dtype=np.float64, copy=True)
    clean.sum_duplicates()
    clean.eliminate_zeros()
    clean.data[:] = 1.0
    return clean


def check_truth(truth: sp.csr_matrix) -> None:
    """Raise DataError where there is nothing to average over."""
    if truth.shape[0] == 0:
        raise DataError("evaluation: the truth has no documents.")
    if truth.nnz == 0:
        raise DataError(
            f"evaluation: none of the {truth.shape[0]} documents has a label; no metric is defined."
        )


def check_predictions(ids: np.ndarray, truth: sp.csr_matrix, k: int) -> None:
    """Check ids [N, at least k] against truth [N, L + E]; raises DataError naming the first bad row.

    Label ids are whole, below L + E, each at most once a row, with -1 only after the last.
    """
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(
            f"predictions: expected whole label ids [N, k], got {ids.dtype} {list(ids.shape)}."
        )
    if ids.shape[0] != truth.shape[0]:
        raise DataError(
            f"predictions: {ids.shape[0]} rows, but the truth has {truth.shape[0]} documents. "
            "They belong to different splits or corpora; train again."
        )
    if ids.shape[1] < k:
        raise DataError(
            f"predictions: {ids.shape[1]} labels a document, but {k} are needed; "
            "fill rows with fewer with -1."
        )
    if ids.min() < -1 or ids.max() >= truth.shape[1]:
        raise DataError(
            f"predictions: label ids run from {ids.min()} to {ids.max()}, "
            f"but there are {truth.shape[1]} labels."
        )
    padding = ids < 0
    _refuse(padding[:, :-1] & ~padding[:, 1:], "has a label after -1; padding goes last")
    ordered = np.sort(ids, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    _refuse(repeated, "has a label twice, which would count as two hits")


def check_order(ids: np.ndarray, scores: np.ndarray) -> None:
    """Check that scores [N, k] fall along each row of ids [N, k] (ties in any order); raises DataError."""
    if scores.shape != ids.shape:
        raise DataError(f"predictions: ids are {list(ids.shape)}, scores {list(scores.shape)}.")
    valid = ids >= 0
    _refuse(valid & np.isnan(scores), "has a score that is not a number")
    _refuse((scores[:, 1:] > scores[:, :-1]) & valid[:, 1:], "is not ordered best first")


def hits(ids: np.ndarray, truth: sp.csr_matrix) -> np.ndarray:
    """Bool [N, k]: whether ids[i, j] is among the stored columns of row i (canonical, see `binary`)."""
    columns = truth.shape[1]
    rows = np.repeat(np.arange(truth.shape[0], dtype=np.int64), np.diff(truth.indptr))
    # one number a pair, ascending since the rows are sorted; -1 must not reach into the row above
    pairs = rows * columns + truth.indices
    wanted = np.arange(ids.shape[0], dtype=np.int64)[:, None] * columns + ids
    if not pairs.size:
        return np.zeros(ids.shape, dtype=bool)
    places = np.searchsorted(pairs, wanted)
    is_pair = pairs[np.minimum(places, pairs.size - 1)] == wanted
    return is_pair & (ids >= 0)


def _refuse(bad: np.ndarray, problem: str) -> None:
    if bad.any():
        row = int(np.argmax(bad.any(axis=1)))
        raise DataError(f"predictions: row {row} {problem}.")
