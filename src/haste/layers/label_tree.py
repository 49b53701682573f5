"""A tree of label clusters: only the labels of the best clusters are scored (LightXML, CascadeXML)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels import torch_backend
from haste.kernels.checks import check_count, check_positives
from haste.kernels.loss import LOSSES
from haste.kernels.rounding import dequantize, mix, storage_view
from haste.kernels.state import LayerState, Positives, RowRange, StepContext
from haste.layers.base import LayerOptions, OutputLayer, StepResult, distinct
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


@dataclass(frozen=True)
class _Tile:
    """Some of the clusters that any document has on its shortlist, and the documents of each, padded to m of them."""

    clusters: Tensor
    """int64 [u], ascending within the tile's counts"""
    rows: Tensor
    """int64 [u, G]: their labels, the last one again where there are no more"""
    docs: Tensor
    """int64 [u, m]"""
    real: Tensor
    """bool [u, G, m]: whether there is such a label, and such a document"""
    features: Tensor
    """fp32 [u, m, H]"""
    weight: Tensor
    """fp32 [u, G, H]"""
    logits: Tensor
    """fp32 [u, G, m], -inf where not real"""


class LabelTree(OutputLayer):
    """Labels in clusters of `cluster_size` rows, of which those on a document's shortlist are scored and trained.

    The shortlist has the labels of the `shortlist` best clusters, and in training those of all clusters with
    a positive, so that negatives are drawn from where the model errs. The loss is that of the labels on the
    shortlists, summed, and that of `clusters`, a layer whose labels are the clusters. A label's probability is
    its own times its cluster's; scores are the log odds of that. Labels whose cluster is on no shortlist of a
    batch rest.
    """

    labels: Dense
    clusters: OutputLayer

    def __init__(
        self, labels: Dense, clusters: OutputLayer, cluster_size: int, shortlist: int
    ) -> None:
        """Cluster k has the rows from k G on, the last one perhaps fewer."""
        super().__init__()
        check_count("cluster_size", cluster_size)
        check_count("shortlist", shortlist)
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
        """False: how many documents a cluster has differs from step to step."""
        return False

    def step(
        self, features: Tensor, positives: Positives[Tensor], context: StepContext
    ) -> StepResult:
        """See OutputLayer. The shortlists are those before the step."""
        self.check(features)
        check_positives(positives, len(features), features.device)
        known = (positives.label_row >= 0) & (positives.label_row < self.n_labels)
        label, doc = positives.label_row[known].long(), positives.doc[known].long()
        cluster = label // self.cluster_size
        chosen = self._chosen(self.clusters.topk(features, self.shortlist)[1])
        chosen[cluster, doc] = True
        above = self.clusters.step(features, distinct(cluster, doc, len(features)), context)
        loss, dx = above.loss, above.dx.clone()
        options = self.labels.options
        context = replace(context, seed=mix(context.seed, self.n_labels))
        # the column of each document among those of a cluster, and the place of each cluster in its tile
        column = (chosen.cumsum(1) - 1)[cluster, doc]
        place = torch.empty(len(chosen), dtype=torch.int64, device=features.device)
        begin = 0
        for tile in self._tiles(features.float(), chosen):
            size, _, width = tile.logits.shape
            place.fill_(-1)[tile.clusters] = torch.arange(size, device=place.device)
            here = place[cluster] >= 0
            row = place[cluster[here]] * self.cluster_size + label[here] % self.cluster_size
            tile_loss, dz = LOSSES[options.loss](
                tile.logits.view(-1, width), row, column[here], options.loss_dtype
            )
            loss = loss + tile_loss
            dz = dz.view(tile.logits.shape)
            dh = torch.bmm(dz.transpose(1, 2), tile.weight)
            dx.index_add_(0, tile.docs.flatten(), dh.flatten(0, 1))
            self._update(tile, torch.bmm(dz, tile.features), dz, context, begin)
            begin += size
        return StepResult(loss, dx)

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer: -inf for labels that are not on the shortlist of a document."""
        self.check(features, rows)
        scores, best = self.clusters.topk(features, self.shortlist)
        above = scores.new_full((len(features), self.clusters.n_labels), -torch.inf)
        above.scatter_(1, best, scores)
        cluster = torch.arange(rows.start, rows.stop, device=features.device) // self.cluster_size
        return _log_odds(above[:, cluster], self.labels.logits(features, rows))

    def topk(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See OutputLayer; where a shortlist has fewer than k labels the rest is -1."""
        self.check(features)
        check_count("k", k)
        above, best = self.clusters.topk(features, self.shortlist)
        # the place of each cluster among the best of each document
        slot = best.new_zeros(len(features), self.clusters.n_labels)
        slot.scatter_(1, best, torch.arange(self.shortlist, device=best.device).expand_as(best))
        own = above.new_full((*best.shape, self.cluster_size), -torch.inf)
        for tile in self._tiles(features.float(), self._chosen(best)):
            real = tile.real[:, 0]
            docs = tile.docs[real]
            cluster = tile.clusters[:, None].expand_as(tile.docs)[real]
            own[docs, slot[docs, cluster]] = tile.logits.transpose(1, 2)[real]
        scores = _log_odds(above[:, :, None], own).flatten(1)
        found, at = scores.topk(min(k, scores.shape[1]), dim=1)
        rows = best.gather(1, at // self.cluster_size) * self.cluster_size + at % self.cluster_size
        rows = rows.masked_fill(found == -torch.inf, -1)
        missing = (0, k - found.shape[1])
        pad = torch.nn.functional.pad
        return pad(found, missing, value=-torch.inf), pad(rows, missing, value=-1)

    def add_to_bias(self, offset: float) -> None:
        """Raises KernelError: a label's score is no sum that an offset could be added to."""
        raise KernelError(f"add_to_bias: {offset:g} cannot be added to the scores of a label tree.")

    def _chosen(self, best: Tensor) -> Tensor:
        """bool [K, B]: which are the clusters int64 [B, C] of each document."""
        shape = self.clusters.n_labels, len(best)
        chosen = torch.zeros(shape, dtype=torch.bool, device=best.device)
        return chosen.scatter_(0, best.t(), True)

    def _tiles(self, features: Tensor, chosen: Tensor) -> Iterator[_Tile]:
        """All (cluster, document) pairs of `chosen`, bool [K, B], by tiles of clusters; each cluster once.

        Clusters with as many documents share a tile, so little of it is padding.
        """
        counts = chosen.sum(1)
        order = counts.argsort(descending=True, stable=True)
        sizes = counts[order].tolist()
        end = sum(size > 0 for size in sizes)
        within = torch.arange(self.cluster_size, device=features.device)
        begin = 0
        while begin < end:
            width = sizes[begin]
            rows_of_one = max(self.cluster_size, width)
            size = max(1, torch_backend.TILE_BYTES // (4 * rows_of_one * self.n_features))
            clusters = order[begin : min(begin + size, end)]
            begin += size
            rows = clusters[:, None] * self.cluster_size + within
            there, rows = rows < self.n_labels, rows.clamp(max=self.n_labels - 1)
            # the documents of a cluster in their order, then others
            docs = chosen[clusters].int().argsort(dim=1, descending=True, stable=True)[:, :width]
            real = there[:, :, None] & chosen[clusters].gather(1, docs)[:, None]
            weight = dequantize(_taken(self.labels.weight, rows))
            gathered = features[docs]
            bias = self.labels.bias[rows].float()[:, :, None]
            logits = torch.baddbmm(bias, weight, gathered.transpose(1, 2))
            logits.masked_fill_(~real, -torch.inf)
            yield _Tile(clusters, rows, docs, real, gathered, weight, logits)

    def _update(
        self, tile: _Tile, dw: Tensor, dz: Tensor, context: StepContext, begin: int
    ) -> None:
        """Step the labels of a tile, the first of whose clusters is the `begin`-th of the batch's."""
        there = tile.real[:, :, 0]
        rows = tile.rows[there]
        tensors = {
            name: value
            for name, value in vars(self.labels.state).items()
            if isinstance(value, Tensor)
        }
        copies = {name: _taken(value, rows) for name, value in tensors.items()}
        part = LayerState(**copies, rows=RowRange(begin, begin + len(rows), self.n_labels))
        update = torch_backend.updates(part, context, self.labels.options.sgd)
        update(slice(0, len(rows)), dw[there], dz[there])
        for name, value in tensors.items():
            storage_view(value)[rows] = storage_view(copies[name])


def _taken(value: Tensor, rows: Tensor) -> Tensor:
    """Rows of stored values, in any shape, as stored."""
    return storage_view(value)[rows].view(value.dtype)


def _log_odds(above: Tensor, own: Tensor) -> Tensor:
    """Log odds of sigmoid(above) sigmoid(own), which broadcast: (1 - p) / p = e^-a + e^-z + e^-(a + z)."""
    above, own = torch.broadcast_tensors(above, own)
    return -torch.stack([-above, -own, -above - own]).logsumexp(0)
