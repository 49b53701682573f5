"""Taking (document, label) pairs out of predictions and truth before measuring.

For reciprocal pairs (a document and a label whose roles are swapped in a training pair), and for the
lists of reciprocal pairs that come with data sets whose labels are documents too.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from haste.errors import DataError
from haste.metrics.matching import binary, hits

PADDING = -1


def remove_positives(truth: sp.csr_matrix, pairs: sp.csr_matrix) -> sp.csr_matrix:
    """The truth [N, L + E] without `pairs` [N, L + E]; rows may become empty. Raises DataError."""
    pairs = _fitting(pairs, truth.shape)
    left = binary(truth)
    left = sp.csr_matrix(left - left.multiply(pairs))
    left.eliminate_zeros()
    return left


def remove_predictions(ids: np.ndarray, pairs: sp.csr_matrix) -> np.ndarray:
    """Predictions [N, k] without `pairs` [N, L + E]: the next best move up, -1 fills the end.

    Raises DataError where the numbers of documents differ.
    """
    pairs = _fitting(pairs, (ids.shape[0], pairs.shape[1]))
    gone = hits(ids, pairs)
    # False sorts before True and the sort is stable, so what stays keeps its order
    order = np.argsort(gone, axis=1, kind="stable")
    moved = np.take_along_axis(ids, order, axis=1)
    moved[np.take_along_axis(gone, order, axis=1)] = PADDING
    return moved


def _fitting(pairs: sp.csr_matrix, shape: tuple[int, int]) -> sp.csr_matrix:
    if pairs.shape != shape:
        raise DataError(
            f"filter: the pairs to remove are {list(pairs.shape)} documents by labels, "
            f"but {list(shape)} are evaluated. They belong to another split or corpus."
        )
    return binary(pairs)
