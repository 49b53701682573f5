"""Groups of labels that share an index set: an order of the tail, group after group."""

from __future__ import annotations

import logging

import numpy as np

from haste.errors import ConfigError, DataError
from haste.labels.arrange import greedy_seeding, recursive_bisection
from haste.labels.order import LabelOrder
from haste.labels.spec import OrderSpec
from haste.labels.split import most_frequent_first, split_head_tail

log = logging.getLogger(__name__)

ARRANGEMENTS = {"semantic": greedy_seeding, "balanced": recursive_bisection}
"""groupings by embeddings: how a cluster of labels is cut into groups"""
BLOCK = 4096
"""groups whose cohesion is computed at once"""


def order_labels(
    spec: OrderSpec, embeddings: np.ndarray | None, frequencies: np.ndarray
) -> LabelOrder:
    """Head and groups of the tail as `spec` says, with the groups' cohesion where embeddings are given.

    `embeddings`: float32 [L, H], rows of length 1 (or 0), or None where the grouping needs none;
    `frequencies`: int64 [L]. Raises what `group_labels` raises, and ConfigError where the head leaves no
    tail.
    """
    head, tail = split_head_tail(frequencies, spec.head_ratio, spec.group_size)
    tail = group_labels(spec.grouping, embeddings, frequencies, tail, spec.group_size, spec.seed)
    measured = () if embeddings is None else (cohesion(embeddings, tail, spec.group_size),)
    order = LabelOrder(np.concatenate([head, tail]), len(head), spec.group_size, *measured)
    order.check_tail(spec.name)
    if order.n_groups == 1:
        log.warning(
            "%s: the tail of %d labels is one group: all of them share one index set",
            spec.name,
            order.n_tail,
        )
    return order


def group_labels(
    method: str,
    embeddings: np.ndarray | None,
    frequencies: np.ndarray,
    tail_ids: np.ndarray,
    group_size: int,
    seed: int,
) -> np.ndarray:
    """The tail's labels, group after group: int32 [n_tail]; all groups have G labels but the last.

    * `semantic`: spherical k-means into about n_tail / (16 G) clusters, then a seed and its G - 1 nearest
    * `balanced`: the same clusters, cut into groups by recursive bisection (ours)
    * `frequency`: most frequent first, ties by id
    * `frequency_shuffled`: the same, ties in an order drawn with `seed`. Ids may say what a label means, as those of
      WordNet's synsets do, and most of the tail's frequencies are ties
    * `random`: a permutation drawn with `seed`

    `embeddings`: float32 [L, H], rows of length 1 (or 0), for the first two; `frequencies`: int64 [L];
    `tail_ids`: int [n_tail], in any order. The same seed gives the same groups on any number of threads.
    Raises ConfigError where embeddings are lacking, DataError when they and the labels do not fit together.
    """
    ids = np.sort(tail_ids).astype(np.int32)
    if method == "frequency":
        return ids[most_frequent_first(frequencies[ids])]
    if method in ("frequency_shuffled", "random"):
        shuffled = np.random.default_rng(seed).permutation(ids)
        if method == "random":
            return shuffled
        return shuffled[most_frequent_first(frequencies[shuffled])]
    if embeddings is None:
        raise ConfigError(
            f"grouping: {method!r} needs label embeddings; make them with haste embed and give them "
            "with --embeddings."
        )
    if len(embeddings) != len(frequencies):
        raise DataError(
            f"grouping: embeddings of {len(embeddings)} labels, but the corpus has {len(frequencies)}; "
            "run haste embed again."
        )
    try:
        # of the extra `data`, which other groupings do without
        from threadpoolctl import threadpool_limits

        from haste.labels.clusters import group_in_clusters
    except ImportError as error:
        raise ConfigError(
            f"layer.grouping: {method!r} needs {error.name}; pip install 'haste-xmc[data]', or group by "
            "frequency or random."
        ) from error
    # sums in BLAS may depend on the number of threads, and near ties between labels with them
    with threadpool_limits(limits=1):
        return group_in_clusters(embeddings, ids, group_size, ARRANGEMENTS[method], seed)


def cohesion(embeddings: np.ndarray, order: np.ndarray, group_size: int) -> np.ndarray:
    """Mean cosine of each group's labels to the group's mean: float32 [K].

    `embeddings`: float32 [L, H], rows of length 1, or 0 for a label without a direction, whose cosine is
    0; `order`: int [n], label ids, group after group, the last perhaps shorter. For rows e_l of length 1
    and m their mean, mean(e_l . m / |m|) = |m|, so the cohesion is the length of the mean.
    """
    values = [np.empty(0, np.float32)]
    for start in range(0, len(order), BLOCK * group_size):
        block = order[start : start + BLOCK * group_size]
        starts = np.arange(0, len(block), group_size)
        sums = np.add.reduceat(embeddings[block], starts, axis=0)
        members = np.diff(np.append(starts, len(block)))
        values.append((np.linalg.norm(sums, axis=1) / members).astype(np.float32))
    return np.concatenate(values)
