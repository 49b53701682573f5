"""Two ways to cut the labels of one cluster into groups of G.

Both take unit vectors float32 [n, H] and return int64 [n], the positions group after group; the
n mod G that are left over come last.
"""

from __future__ import annotations

import numpy as np

POWER_STEPS = 10
"""of power iteration, towards the direction in which the labels differ most"""
SPLIT_STEPS = 8
"""of 2-means at most; it mostly stops earlier, when no label changes sides"""


def greedy_seeding(vectors: np.ndarray, group_size: int) -> np.ndarray:
    """A seed and the G - 1 nearest labels not yet in a group, again and again.

    Seeds are taken by their nearness to the mean: on label embeddings of WordNet this gives more cohesive
    groups than the outermost labels, or labels by id, as seeds.
    """
    free = np.argsort(-(vectors @ vectors.mean(axis=0)), kind="stable")
    groups = []
    while len(free) >= group_size:
        nearness = vectors[free] @ vectors[free[0]]
        picked = np.argsort(-nearness, kind="stable")[:group_size]
        groups.append(free[picked])
        free = np.delete(free, picked)
    return np.concatenate([*groups, free])


def recursive_bisection(vectors: np.ndarray, group_size: int) -> np.ndarray:
    """Split in two by 2-means, with sizes that are multiples of G, until groups of G remain.

    Each split maximises |s1| + |s2|, the lengths of the sums of both sides: for unit vectors the sum of
    all labels' cosines to their side's mean.
    """
    pieces = []
    waiting = [np.arange(len(vectors))]
    while waiting:
        piece = waiting.pop()
        if len(piece) <= group_size:
            pieces.append(piece)
            continue
        order, cut = _bisect(vectors[piece], group_size)
        # the second side, which has what is left over, waits below the first
        waiting += [piece[order[cut:]], piece[order[:cut]]]
    return np.concatenate(pieces)


def _bisect(vectors: np.ndarray, group_size: int) -> tuple[np.ndarray, int]:
    """An order of the vectors and where to cut it, a multiple of G: 2-means from a principal axis."""
    direction = _principal_direction(vectors)
    order, cut = _best_cut(vectors, direction, group_size)
    for _ in range(SPLIT_STEPS):
        first, second = vectors[order[:cut]].sum(axis=0), vectors[order[cut:]].sum(axis=0)
        before = _membership(order, cut)
        order, cut = _best_cut(vectors, _unit(first) - _unit(second), group_size)
        if np.array_equal(before, _membership(order, cut)):
            break
    return order, cut


def _best_cut(
    vectors: np.ndarray, direction: np.ndarray, group_size: int
) -> tuple[np.ndarray, int]:
    """Labels sorted along a direction, and the multiple of G where |s1| + |s2| is greatest.

    Neither side has less than a quarter of the groups: an outlier does not split off alone.
    """
    order = np.argsort(-(vectors @ direction), kind="stable")
    sums = np.add.reduceat(vectors[order], np.arange(0, len(order), group_size), axis=0)
    n_groups = len(sums)
    least = max(1, n_groups // 4)
    until = np.cumsum(sums, axis=0)
    first = until[least - 1 : n_groups - least]
    gain = np.linalg.norm(first, axis=1) + np.linalg.norm(until[-1] - first, axis=1)
    return order, (least + int(np.argmax(gain))) * group_size


def _principal_direction(vectors: np.ndarray) -> np.ndarray:
    """About the first principal axis, by power iteration from the label farthest from the mean."""
    centred = vectors - vectors.mean(axis=0)
    direction = centred[np.argmax(np.einsum("nh,nh->n", centred, centred))]
    for _ in range(POWER_STEPS):
        direction = _unit((centred @ direction) @ centred)
    return direction


def _membership(order: np.ndarray, cut: int) -> np.ndarray:
    first = np.zeros(len(order), bool)
    first[order[:cut]] = True
    return first


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector
