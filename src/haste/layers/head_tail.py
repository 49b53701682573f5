"""A dense head for the most frequent labels and a sparse tail for the rest, under one loss."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels.state import Positives, StepContext
from haste.layers.base import OutputLayer, RewireStats, StepResult


class HeadTail(OutputLayer):
    """Rows [0, n_head) belong to `head`, the rest to `tail`.

    Each reads a slice of the features: all of them, private halves, or its own projection.
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
        for name, part, at in (("head", head, head_features), ("tail", tail, tail_features)):
            width = len(range(*at.indices(n_features)))
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

    def step(self, features: Tensor, positives: Positives, context: StepContext) -> StepResult:
        """See OutputLayer."""
        self.check(features)
        loss = 0
        dx = torch.zeros_like(features, dtype=torch.float32)
        for layer, at, own in self._parts(positives):
            result = layer.step(features[:, at].contiguous(), own, context)
            dx[:, at] += result.dx
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

    def rewire(
        self,
        random: torch.Generator,
        features: Tensor | None = None,
        positives: Positives | None = None,
    ) -> RewireStats:
        """See OutputLayer."""
        if features is None or positives is None:
            return self.head.rewire(random) + self.tail.rewire(random)
        self.check(features)
        stats = RewireStats()
        for layer, at, own in self._parts(positives):
            stats += layer.rewire(random, features[:, at].contiguous(), own)
        return stats

    def add_to_bias(self, offset: float) -> None:
        """See OutputLayer."""
        self.head.add_to_bias(offset)
        self.tail.add_to_bias(offset)

    @property
    def capturable(self) -> bool:
        """See OutputLayer."""
        return self.head.capturable and self.tail.capturable

    def trained_parameters(self) -> int:
        """See OutputLayer."""
        return self.head.trained_parameters() + self.tail.trained_parameters()

    def _parts(self, positives: Positives) -> list[tuple[OutputLayer, slice, Positives]]:
        border = self.head.n_labels
        if positives.label_row.is_cuda:
            # the kernels pass over labels that are not theirs; to cut here would synchronize
            moved = Positives(positives.label_row - border, positives.doc)
            return [
                (self.head, self.head_features, positives),
                (self.tail, self.tail_features, moved),
            ]
        limit = torch.tensor(
            border, dtype=positives.label_row.dtype, device=positives.label_row.device
        )
        cut = int(torch.searchsorted(positives.label_row, limit))
        own = Positives(positives.label_row[:cut], positives.doc[:cut])
        rest = Positives(positives.label_row[cut:] - border, positives.doc[cut:])
        return [(self.head, self.head_features, own), (self.tail, self.tail_features, rest)]
