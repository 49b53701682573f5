"""Exact groups from clusters: k-means, a walk along near centroids, remainders carried over."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import faiss
import numpy as np
import scipy.sparse as sp

logger = logging.getLogger(__name__)

GROUPS_PER_CLUSTER = 16
"""about this many groups come out of one cluster"""
LARGEST = 8
"""a cluster with more than so many times the labels of the average is clustered again"""
ITERATIONS = 20
SAMPLE = 256
"""labels a cluster that k-means learns from"""
MOST_EXACT = 1024
"""clusters of one k-means whose labels are compared with all centroids; with more, with some"""
ITERATIONS_OF_MANY = 10
SAMPLE_OF_MANY = 64
"""fewer of both, where there are so many clusters"""
LISTS = 4
"""many centroids lie in LISTS sqrt(k) lists of neighbours ..."""
PROBES = 32
"""... and a label is compared with those of the nearest PROBES, so the cost grows as L^1.5, not L^2.
Cohesion of groups of 16 of WordNet's 101,489 labels: 0.861, and 0.863 by comparing with all; of groups
of 32 of a mixture of a million: 0.761 and 0.766, where clustering coarsely first gave 0.71 to 0.75"""
BLOCK = 65_536
"""labels whose embeddings are gathered at once"""

Arrange = Callable[[np.ndarray, int], np.ndarray]
"""(float32 [n, H], G) -> int64 [n]: the order of one cluster's labels, group after group; the n mod G
that are left over come last"""


def group_in_clusters(
    embeddings: np.ndarray,
    ids: np.ndarray,
    group_size: int,
    arrange: Arrange,
    seed: int,
) -> np.ndarray:
    """The labels `ids`, group after group, only the last one shorter: same shape and dtype as `ids`.

    Spherical k-means makes about n / (16 G) clusters, and `arrange` cuts each into groups of G. What a
    cluster leaves over joins the labels of the next, along a chain of nearest centroids.
    `embeddings`: float32 [L, H], rows of length 1 (or 0); only blocks of it are copied.
    """
    order = []
    rest = ids[:0]
    for cluster in _partition(embeddings, ids, GROUPS_PER_CLUSTER * group_size, seed):
        members = np.concatenate([rest, cluster])
        grouped = len(members) // group_size * group_size
        if grouped:
            members = members[arrange(embeddings[members], group_size)]
        order.append(members[:grouped])
        rest = members[grouped:]
    return np.concatenate([*order, rest])


def _partition(
    embeddings: np.ndarray, ids: np.ndarray, cluster_size: int, seed: int
) -> Iterator[np.ndarray]:
    """Clusters of about `cluster_size` labels, each near the one before it."""
    n_clusters = max(1, round(len(ids) / cluster_size))
    if n_clusters == 1:
        yield ids
        return
    cluster = _kmeans if n_clusters <= MOST_EXACT else _kmeans_of_many
    centroids, nearest = cluster(embeddings, ids, n_clusters, seed)
    logger.info("k-means: %d labels in %d clusters", len(ids), n_clusters)
    by_cluster = np.argsort(nearest, kind="stable")
    bounds = np.searchsorted(nearest[by_cluster], np.arange(n_clusters + 1))
    for cluster_id in _chain(centroids, np.flatnonzero(np.diff(bounds))):
        part = ids[by_cluster[bounds[cluster_id] : bounds[cluster_id + 1]]]
        if len(part) <= LARGEST * cluster_size:
            yield part
        elif len(part) < len(ids):
            yield from _partition(embeddings, part, cluster_size, seed)
        else:
            # labels that k-means cannot tell apart
            yield from np.array_split(part, n_clusters)


def _kmeans(
    embeddings: np.ndarray, ids: np.ndarray, n_clusters: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids float32 [k, H] and the nearest of them for each label, int64 [n]."""
    kmeans = faiss.Kmeans(
        embeddings.shape[1],
        n_clusters,
        niter=ITERATIONS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE,
    )
    sample = _sample(np.random.default_rng(seed), ids, SAMPLE * n_clusters)
    kmeans.train(embeddings[sample])
    assert kmeans.centroids is not None  # they are there after training
    return kmeans.centroids, _nearest(kmeans.index, embeddings, ids)


def _kmeans_of_many(
    embeddings: np.ndarray, ids: np.ndarray, n_clusters: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `_kmeans`, where labels are compared with the centroids of the nearest lists alone."""
    rng = np.random.default_rng(seed)
    sample = _sample(rng, ids, SAMPLE_OF_MANY * n_clusters)
    centroids = embeddings[_sample(rng, sample, n_clusters)]
    for _ in range(ITERATIONS_OF_MANY):
        nearest = _nearest(_inverted_lists(centroids, seed), embeddings, sample)
        sums = np.zeros_like(centroids)
        for start in range(0, len(sample), BLOCK):
            assigned = nearest[start : start + BLOCK]
            n, ones = len(assigned), np.ones(len(assigned), np.float32)
            membership = sp.csr_matrix((ones, assigned, np.arange(n + 1)), (n, n_clusters))
            sums += membership.T @ embeddings[sample[start : start + BLOCK]]
        lengths = np.linalg.norm(sums, axis=1)
        empty = np.flatnonzero(lengths == 0)
        lengths[empty] = 1
        centroids = sums / lengths[:, None]
        # a centroid that no label is nearest to begins anew as one of them
        centroids[empty] = embeddings[_sample(rng, sample, len(empty))]
    return centroids, _nearest(_inverted_lists(centroids, seed), embeddings, ids)


def _sample(rng: np.random.Generator, ids: np.ndarray, most: int) -> np.ndarray:
    """`most` of the ids, ascending, or all where there are no more."""
    return ids if len(ids) <= most else np.sort(rng.choice(ids, most, replace=False))


def _inverted_lists(centroids: np.ndarray, seed: int) -> faiss.Index:
    """An index that finds a centroid near to a label, mostly the nearest."""
    n_clusters, size = centroids.shape
    n_lists = min(LISTS * math.isqrt(n_clusters), n_clusters)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1
    index.nprobe = PROBES
    index.train(centroids)
    index.add(centroids)
    return index


def _nearest(index: faiss.Index, embeddings: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """int64 [n]: the centroid of the index nearest to each label."""
    nearest = np.empty(len(ids), np.int64)
    for start in range(0, len(ids), BLOCK):
        part = slice(start, start + BLOCK)
        nearest[part] = index.search(embeddings[ids[part]], 1)[1][:, 0]
    # -1 where all lists looked into are empty
    return np.maximum(nearest, 0)


def _chain(centroids: np.ndarray, clusters: np.ndarray) -> Iterator[int]:
    """The clusters, each followed by the nearest one not yet visited."""
    waiting = np.zeros(len(centroids), bool)
    waiting[clusters] = True
    current = int(clusters[0])
    for _ in clusters:
        yield current
        waiting[current] = False
        similarity = centroids @ centroids[current]
        current = int(np.argmax(np.where(waiting, similarity, -np.inf)))
