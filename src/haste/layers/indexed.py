"""Layers whose labels read F features named by index sets, alone or in groups, slot by slot or in runs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels import torch_backend
from haste.kernels.checks import check_count
from haste.kernels.loss import bce_sum
from haste.kernels.reference import run_index
from haste.kernels.rounding import raw, widen
from haste.kernels.state import Positives
from haste.layers.base import LayerOptions, LinearRows, RewireStats
from haste.sparsity.connectivity import draw, regrow_, weakest
from haste.sparsity.cut import Cut

BLOCK = 1 << 22
"""weights that are rewired together"""


class IndexedRows(LinearRows):
    """Weights [L, F]; labels of unit u = row // unit_size read the features that slots [U, S] name.

    A slot is a run of `run` features (1 for single ones), so F = S x run.
    """

    slots: Tensor

    def __init__(
        self,
        n_features: int,
        n_labels: int,
        fan_in: int,
        options: LayerOptions,
        random: torch.Generator,
        *,
        unit_size: int,
        run: int = 1,
    ) -> None:
        for name, value in (("fan_in", fan_in), ("group_size", unit_size), ("run", run)):
            check_count(name, value)
        if fan_in > n_features:
            raise KernelError(
                f"fan_in: {fan_in} is more than the {n_features} features the layer reads; lower fan_in."
            )
        if n_features % run or fan_in % run:
            raise KernelError(
                f"run: {run} must divide both fan_in ({fan_in}) and the features ({n_features})."
            )
        super().__init__(n_features, n_labels, fan_in, options, random.device)
        self.unit_size = unit_size
        self.run = run
        units = -(-n_labels // unit_size)
        slots = draw(
            units,
            fan_in // run,
            n_features // run,
            random,
            with_replacement=options.with_replacement,
        )
        self.register_buffer("slots", slots)
        self.fill_uniform(fan_in, random)

    @property
    def index(self) -> Tensor:
        """int32 [U, F]: the features each unit reads."""
        return self.slots if self.run == 1 else run_index(self.slots * self.run, self.run)

    @property
    def distinct(self) -> bool:
        """Whether no unit names a slot twice."""
        return not self.options.with_replacement

    def rewire(
        self,
        random: torch.Generator,
        features: Tensor | None = None,
        positives: Positives | None = None,
    ) -> RewireStats:
        """Prune the slots with the lowest mean |weight| over their unit's labels and regrow as many.

        New weights are 0, and so is their momentum unless `reset_momentum` is off. Works in blocks of
        units: nothing of the size of the weights is made.
        """
        options = self.options
        if options.growth == "gradient":
            self.check_gradient(features, positives)
        cut = None
        if options.scope == "global":
            cut = Cut(self._scores, int(options.fraction * self.slots.numel()))
        cleared = [self.weight]
        if self.momentum is not None and options.reset_momentum:
            cleared.append(self.momentum)
        moved = 0
        for (units, labels), score in zip(self._unit_blocks(), self._scores(), strict=True):
            pruned = cut.take(score) if cut else weakest(score, options.fraction, "group")
            preference = None
            if options.growth == "gradient":
                preference = self._gradient_by_slot(features, positives, labels)
            regrow_(
                self.slots[units],
                pruned,
                self.n_features // self.run,
                random,
                with_replacement=options.with_replacement,
                preference=preference,
            )
            for values in cleared:
                self._clear(values, labels, pruned)
            moved += int(pruned.sum())
        return RewireStats(slots=self.slots.numel(), moved=moved)

    def slot_scores(self) -> Tensor:
        """fp32 [U, S]: mean |weight| of each slot over its unit's labels (and its run)."""
        return torch.cat(list(self._scores()))

    def _scores(self) -> Iterator[Tensor]:
        """`slot_scores` of each block of units."""
        for _, labels in self._unit_blocks():
            rows = widen(self.weight[labels]).abs()
            if self.run > 1:
                rows = rows.view(len(rows), -1, self.run).mean(dim=2)
            size = min(self.unit_size, len(rows))
            yield rows.view(-1, size, rows.shape[1]).mean(dim=1)

    def _clear(self, values: Tensor, labels: slice, pruned: Tensor) -> None:
        rows = raw(values)[labels]
        size = min(self.unit_size, len(rows))
        mask = pruned.repeat_interleave(self.run, dim=1).repeat_interleave(size, dim=0)
        rows.masked_fill_(mask, 0)

    def _unit_blocks(self) -> list[tuple[slice, slice]]:
        """(units, labels) slices of whole units, a short last unit on its own; small temporaries."""
        whole = self.n_labels // self.unit_size
        size = max(1, BLOCK // (self.unit_size * self.weight.shape[1]))
        spans = [(begin, min(begin + size, whole)) for begin in range(0, whole, size)]
        if self.n_labels % self.unit_size:
            spans.append((whole, whole + 1))
        return [
            (slice(a, b), slice(a * self.unit_size, min(b * self.unit_size, self.n_labels)))
            for a, b in spans
        ]

    def _gradient_by_slot(self, features: Tensor, positives: Positives, labels: slice) -> Tensor:
        """fp32 [U, n]: mean |dz^T h| of each candidate slot over the unit's labels, for those of a block."""
        features = features.float()
        slots = self.n_features // self.run
        logits = self.logits(features, labels).t().contiguous()
        at = torch_backend.positives_of(positives, labels)
        gradient = (bce_sum(logits, *at)[1] @ features).abs()
        if self.run > 1:
            gradient = gradient.view(len(gradient), slots, self.run).mean(dim=2)
        size = min(self.unit_size, len(gradient))
        return gradient.view(-1, size, slots).mean(dim=1)
