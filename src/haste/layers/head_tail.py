"""A dense head for the most frequent labels and a sparse tail for the rest, under one loss."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels.state import Positives, StepContext
from haste.layers.base import Examples, OutputLayer, RewireStats, StepResult


class HeadTail(OutputLayer):
    """Rows [0, n_head) belong to `head`, the rest to `tail`.

    Each reads a slice of the features: all of them, private halves, or its half of the projections.
    """

    def __init__(
        self,
        head: OutputLayer,
        tail: OutputLayer,
        n_features: int,
        head_features: slice,
        tail_features: slice,
    ) -> None:
        super().__init__()
        for name, part, columns in (
            ("head", head, head_features),
            ("tail", tail, tail_features),
        ):
            width = len(range(*columns.indices(n_features)))
            if width != part.n_features:
                raise KernelError(
                    f"{name}: reads {part.n_features} features, but its slice has {width}."
                )
        self.head = head
        self.tail = tail
        self.n_features = n_features
        self.n_labels = head.n_labels + tail.n_labels
        self.head_features = head_features
        self.tail_features = tail_features

    def step(
        self, features: Tensor, positives: Positives[Tensor], context: StepContext
    ) -> StepResult:
        """See OutputLayer."""
        self.check(features)
        loss = torch.zeros((), dtype=torch.float32, device=features.device)
        dx = torch.zeros_like(features, dtype=torch.float32)
        for layer, columns, layer_positives in self._parts(positives):
            result = layer.step(features[:, columns].contiguous(), layer_positives, context)
            dx[:, columns] += result.dx
            loss = loss + result.loss
        return StepResult(loss, dx)

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer."""
        self.check(features, rows)
        border = self.head.n_labels
        parts = []
        if rows.start < border:
            inside = slice(rows.start, min(rows.stop, border))
            parts.append(self.head.logits(features[:, self.head_features].contiguous(), inside))
        if rows.stop > border:
            inside = slice(max(rows.start - border, 0), rows.stop - border)
            parts.append(self.tail.logits(features[:, self.tail_features].contiguous(), inside))
        return torch.cat(parts, dim=1)

    def topk(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See OutputLayer."""
        self.check(features)
        best = self.head.topk(features[:, self.head_features].contiguous(), k)
        other = self.tail.topk(features[:, self.tail_features].contiguous(), k)
        # the missing rows of a part with fewer than k labels stay -1
        rows = torch.where(other[1] < 0, other[1], other[1] + self.head.n_labels)
        scores, places = torch.cat([best[0], other[0]], dim=1).topk(k)
        return scores, torch.cat([best[1], rows], dim=1).gather(1, places)

    def rewire(self, random: torch.Generator, examples: Examples | None = None) -> RewireStats:
        """See OutputLayer."""
        if examples is None:
            return self.head.rewire(random) + self.tail.rewire(random)
        features, positives = examples
        self.check(features)
        stats = RewireStats()
        for layer, columns, layer_positives in self._parts(positives):
            stats += layer.rewire(random, (features[:, columns].contiguous(), layer_positives))
        return stats

    def add_to_bias(self, offset: float) -> None:
        """See OutputLayer."""
        self.head.add_to_bias(offset)
        self.tail.add_to_bias(offset)

    def _parts(
        self, positives: Positives[Tensor]
    ) -> list[tuple[OutputLayer, slice, Positives[Tensor]]]:
        """Head and tail, each with its columns of the features and its positives."""
        label_row, doc = positives.label_row, positives.doc
        border = self.head.n_labels
        if label_row.is_cuda:
            # the kernels ignore labels of the other part; splitting the pairs would synchronize
            of_head, of_tail = positives, Positives(label_row - border, doc)
        else:
            limit = torch.tensor(border, dtype=label_row.dtype, device=label_row.device)
            cut = int(torch.searchsorted(label_row, limit))
            of_head = Positives(label_row[:cut], doc[:cut])
            of_tail = Positives(label_row[cut:] - border, doc[cut:])
        return [(self.head, self.head_features, of_head), (self.tail, self.tail_features, of_tail)]
