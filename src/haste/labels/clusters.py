"""Exact groups from clusters: k-means, a walk along near centroids, remainders carried over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import faiss
import numpy as np

logger = logging.getLogger(__name__)

GROUPS_A_CLUSTER = 16
"""about this many groups come out of one cluster"""
ITERATIONS = 20
SAMPLE = 256
"""labels a cluster that k-means learns from"""
MOST_CLUSTERS = 1024
"""of one k-means: with more, labels are clustered coarsely first, so the cost stays linear in L"""
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
    left = ids[:0]
    for cluster in _walk(embeddings, ids, GROUPS_A_CLUSTER * group_size, seed):
        members = np.concatenate([left, cluster])
        grouped = len(members) // group_size * group_size
        if grouped:
            members = members[arrange(embeddings[members], group_size)]
        order.append(members[:grouped])
        left = members[grouped:]
    return np.concatenate([*order, left])


def _walk(
    embeddings: np.ndarray, ids: np.ndarray, cluster_size: int, seed: int
) -> Iterator[np.ndarray]:
    """Clusters of about `cluster_size` labels, each near the one before it."""
    n_clusters = max(1, round(len(ids) / cluster_size))
    if n_clusters == 1:
        yield ids
        return
    coarse = n_clusters > MOST_CLUSTERS
    wanted = -(-n_clusters // MOST_CLUSTERS) if coarse else n_clusters
    centroids, nearest = _kmeans(embeddings, ids, wanted, seed)
    logger.info("k-means: %d labels in %d clusters", len(ids), wanted)
    by_cluster = np.argsort(nearest, kind="stable")
    bounds = np.searchsorted(nearest[by_cluster], np.arange(wanted + 1))
    for cluster in _chain(centroids, np.flatnonzero(np.diff(bounds))):
        part = ids[by_cluster[bounds[cluster] : bounds[cluster + 1]]]
        # labels that k-means cannot tell apart stay together
        if coarse and len(part) < len(ids):
            yield from _walk(embeddings, part, cluster_size, seed)
        else:
            yield part


def _kmeans(
    embeddings: np.ndarray, ids: np.ndarray, n_clusters: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids float32 [k, H] and the nearest of them for each label, int64 [n]."""
    sample = ids
    if len(ids) > SAMPLE * n_clusters:
        rng = np.random.default_rng(seed)
        sample = np.sort(rng.choice(ids, SAMPLE * n_clusters, replace=False))
    kmeans = faiss.Kmeans(
        embeddings.shape[1],
        n_clusters,
        niter=ITERATIONS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE,
    )
    kmeans.train(embeddings[sample])
    nearest = np.empty(len(ids), np.int64)
    for start in range(0, len(ids), BLOCK):
        block = embeddings[ids[start : start + BLOCK]]
        nearest[start : start + BLOCK] = kmeans.index.search(block, 1)[1][:, 0]
    return kmeans.centroids, nearest


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
