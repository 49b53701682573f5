"""The head-tail split: the most frequent labels get a dense layer, the rest a sparse one."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def most_frequent_first(frequencies: np.ndarray) -> np.ndarray:
    """Positions 0..n-1 by decreasing frequency, ties by position: int32 [n] from counts [n]."""
    return np.argsort(-frequencies, kind="stable").astype(np.int32)


def head_size(n_labels: int, head_ratio: float, group_size: int) -> int:
    """ceil(head_ratio * L), rounded up to a multiple of G as the released code does, at most L."""
    # the ratio as written: 0.1 * 30 is 3.0000000000000004 in floating point, and its ceiling 4
    size = math.ceil(Fraction(str(head_ratio)) * n_labels)
    return min(-(-size // group_size) * group_size, n_labels)


def split_head_tail(
    frequencies: np.ndarray, head_ratio: float, group_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of head and tail, each most frequent first, ties by id.

    `frequencies`: int64 [L], the label space only. Returns int32 [head] and int32 [L - head]; the head
    is empty for ratio 0.
    """
    ids = most_frequent_first(frequencies)
    head = head_size(len(ids), head_ratio, group_size)
    return ids[:head], ids[head:]
