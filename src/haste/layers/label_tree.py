"""A tree of label clusters: only the labels of the best clusters are scored (LightXML, CascadeXML)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels import torch_backend
from haste.kernels.checks import check_count, check_positives
from haste.kernels.rounding import mix
from haste.kernels.state import Positives, StepContext
from haste.kernels.topk import topk
from haste.layers.base import (
    LABELS_PER_CHUNK,
    LayerOptions,
    OutputLayer,
    StepResult,
    unique_positives,
)
from haste.layers.dense import Dense


def label_tree(
    n_features: int,
    n_labels: int,
    options: LayerOptions,
    random: torch.Generator | None,
    *,
    cluster_size: int,
    shortlist: int,
    levels: int = 1,
) -> OutputLayer:
    """A tree of `levels` levels of clusters above the labels: of labels, of clusters of these, and so on.

    One level is LightXML's, whose clusters are all scored; with two, CascadeXML's, those of the best clusters of
    clusters are.
    """
    labels = Dense(n_features, n_labels, options, random)
    if not levels:
        return labels
    n_clusters = -(-n_labels // cluster_size)
    clusters = label_tree(
        n_features, n_clusters, options, random,
        cluster_size=cluster_size, shortlist=shortlist, levels=levels - 1,
    )  # fmt: skip
    return LabelTree(labels, clusters, cluster_size, shortlist)


class LabelTree(OutputLayer):
    """Labels in clusters of `cluster_size` rows, of which those on a document's shortlist are scored and trained.

    The shortlist has the labels of the `shortlist` best clusters, and in training those of all clusters with
    a positive, so that negatives are drawn from where the model errs. The loss is that of the labels on the
    shortlists, summed, and that of `clusters`, a layer whose labels are the clusters. A label's probability is
    its own times its cluster's; scores are the log odds of that. Labels whose cluster is on no shortlist of a
    batch rest.

    It is written for what a label tree learns, not for its speed: logits are computed chunk by chunk of all labels,
    and those off the shortlists are set to -inf.
    """

    labels: Dense
    clusters: OutputLayer

    def __init__(
        self, labels: Dense, clusters: OutputLayer, cluster_size: int, shortlist: int
    ) -> None:
        """Cluster k has the rows from k G on, the last one perhaps fewer."""
        super().__init__()
        cluster_size = check_count("cluster_size", cluster_size)
        shortlist = check_count("shortlist", shortlist)
        n_clusters = -(-labels.n_labels // cluster_size)
        if clusters.n_labels != n_clusters:
            raise KernelError(
                f"clusters: a layer of {clusters.n_labels} rows; {labels.n_labels} labels in clusters of "
                f"{cluster_size} have {n_clusters}."
            )
        self.labels = labels
        self.clusters = clusters
        self.cluster_size = cluster_size
        self.shortlist = min(shortlist, n_clusters)
        self.n_labels = labels.n_labels
        self.n_features = labels.n_features

    @property
    def capturable(self) -> bool:
        """False: how many pairs of a document and a cluster have a positive differs from step to step."""
        return False

    def step(
        self, features: Tensor, positives: Positives[Tensor], context: StepContext
    ) -> StepResult:
        """See OutputLayer. The shortlists are those before the step."""
        self.check(features)
        check_positives(positives, len(features), features.device)
        known = (positives.label_row >= 0) & (positives.label_row < self.n_labels)
        cluster = positives.label_row[known].long() // self.cluster_size
        doc = positives.doc[known].long()
        _, best = self.clusters.topk(features, self.shortlist)
        listed = torch.zeros(
            self.clusters.n_labels, len(features), dtype=torch.bool, device=features.device
        )
        listed.scatter_(0, best.t(), True)[cluster, doc] = True
        above = self.clusters.step(features, unique_positives(cluster, doc, len(features)), context)
        options = self.labels.options
        loss, dx = torch_backend.dense_step(
            features.float(), self.labels.state, positives,
            replace(context, seed=mix(context.seed, self.n_labels)), options.sgd,
            labels_per_chunk=max(1, torch_backend.TILE_BYTES // (4 * max(features.shape))),
            loss_dtype=options.loss_dtype, loss_name=options.loss, listed=listed,
            cluster_size=self.cluster_size,
        )  # fmt: skip
        return StepResult(above.loss + loss, above.dx + dx)

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer: -inf for labels that are not on the shortlist of a document."""
        self.check(features, rows)
        return self._scores(features)(rows)

    def topk(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See OutputLayer; where a shortlist has fewer than k labels the rest is -1."""
        self.check(features)
        scores, rows = topk(self._scores(features), self.n_labels, k, LABELS_PER_CHUNK)
        return scores, rows.masked_fill(scores == -torch.inf, -1)

    def add_to_bias(self, offset: float) -> None:
        """Raises KernelError: a label's score is no sum that an offset could be added to."""
        raise KernelError(f"add_to_bias: {offset:g} cannot be added to the scores of a label tree.")

    def _scores(self, features: Tensor) -> Callable[[slice], Tensor]:
        """What scores [B, n] a slice of n labels."""
        scores, best = self.clusters.topk(features, self.shortlist)
        above = scores.new_full((len(features), self.clusters.n_labels), -torch.inf)
        above.scatter_(1, best, scores)

        def scores_of(rows: slice) -> Tensor:
            row = torch.arange(rows.start, rows.stop, device=features.device)
            return _log_odds(above[:, row // self.cluster_size], self.labels.logits(features, rows))

        return scores_of


def _log_odds(above: Tensor, below: Tensor) -> Tensor:
    """Log odds of sigmoid(above) sigmoid(below), of one shape: (1 - p) / p = e^-a + e^-z + e^-(a + z)."""
    return -torch.stack([-above, -below, -above - below]).logsumexp(0)
