"""Wrong predictions that share a group of labels with a right one."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from haste.labels.order import LabelOrder
from haste.metrics.matching import binary, check_predictions, hits


def groups_of(order: LabelOrder, n_labels: int) -> np.ndarray:
    """int64 [n_labels]: the tail group of each label; -1 for the head, and for labels beyond the order."""
    groups = np.full(n_labels, -1, np.int64)
    tail = order.labels[order.head :]
    groups[tail] = np.arange(len(tail)) // order.group_size
    return groups


def group_confusions(
    ids: np.ndarray, truth: sp.csr_matrix, groups: np.ndarray, k: int
) -> np.ndarray:
    """float64 [N]: how many per cent of the first k predictions are wrong, but of the group of a right label.

    Args:
        ids: int [N, at least k] predicted labels, best first, -1 where there are fewer.
        truth: [N, L + E].
        groups: int [L + E], -1 for labels of no group.

    Raises DataError where they do not fit.
    """
    check_predictions(ids, truth, k)
    truth, first = binary(truth), ids[:, :k]
    wrong = (first >= 0) & ~hits(first, truth)
    grouped = np.flatnonzero(groups >= 0)
    n_groups = int(groups.max(initial=-1)) + 1
    to_group = sp.csr_matrix(
        (np.ones(len(grouped)), (grouped, groups[grouped])), shape=(len(groups), n_groups)
    )
    right = binary(truth @ to_group)
    of = np.where(first >= 0, groups[first], -1)
    return 100.0 * (wrong & hits(of, right)).sum(1) / k
