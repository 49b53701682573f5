"""Layers whose labels read F features named by index sets, alone or in groups, slot by slot or in runs."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.data.batches import Positives
from haste.errors import KernelError
from haste.kernels import torch_backend
from haste.kernels.loss import bce_sum
from haste.kernels.reference import run_index
from haste.kernels.rounding import raw, widen
from haste.layers.base import LayerOptions, LinearRows, RewireStats
from haste.sparsity.connectivity import draw, regrow_, weakest


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

        New weights are 0, and so is their momentum unless `reset_momentum` is off.
        """
        pruned = weakest(self.slot_scores(), self.options.fraction, self.options.scope)
        preference = None
        if self.options.growth == "gradient":
            preference = self._gradient_by_slot(features, positives)
        regrow_(
            self.slots,
            pruned,
            self.n_features // self.run,
            random,
            with_replacement=self.options.with_replacement,
            preference=preference,
        )
        self._clear(self.weight, pruned)
        if self.momentum is not None and self.options.reset_momentum:
            self._clear(self.momentum, pruned)
        return RewireStats(slots=pruned.numel(), moved=int(pruned.sum()))

    def slot_scores(self) -> Tensor:
        """fp32 [U, S]: mean |weight| of each slot over its unit's labels (and its run)."""
        scores = torch.empty(self.slots.shape, dtype=torch.float32, device=self.slots.device)
        for units, labels in self._unit_blocks():
            rows = widen(self.weight[labels]).abs()
            if self.run > 1:
                rows = rows.view(len(rows), -1, self.run).mean(dim=2)
            size = min(self.unit_size, len(rows))
            scores[units] = rows.view(-1, size, rows.shape[1]).mean(dim=1)
        return scores

    def _clear(self, values: Tensor, pruned: Tensor) -> None:
        for units, labels in self._unit_blocks():
            rows = raw(values)[labels]
            size = min(self.unit_size, len(rows))
            mask = pruned[units].repeat_interleave(self.run, dim=1).repeat_interleave(size, dim=0)
            rows.masked_fill_(mask, 0)

    def _unit_blocks(self) -> list[tuple[slice, slice]]:
        """(units, labels) slices of whole units, a short last unit on its own; small temporaries."""
        whole = self.n_labels // self.unit_size
        size = max(1, (1 << 22) // (self.unit_size * self.weight.shape[1]))
        spans = [(begin, min(begin + size, whole)) for begin in range(0, whole, size)]
        if self.n_labels % self.unit_size:
            spans.append((whole, whole + 1))
        return [
            (slice(a, b), slice(a * self.unit_size, min(b * self.unit_size, self.n_labels)))
            for a, b in spans
        ]

    def _gradient_by_slot(self, features: Tensor, positives: Positives) -> Tensor:
        """fp32 [U, n]: mean |dz^T h| of each candidate slot over the unit's labels."""
        features = features.float()
        slots = self.n_features // self.run
        preference = torch.empty(self.slots.shape[0], slots, device=features.device)
        for units, labels in self._unit_blocks():
            logits = self.logits(features, labels).t().contiguous()
            at = torch_backend.positives_of(positives, labels)
            gradient = (bce_sum(logits, *at)[1] @ features).abs()
            if self.run > 1:
                gradient = gradient.view(len(gradient), slots, self.run).mean(dim=2)
            size = min(self.unit_size, len(gradient))
            preference[units] = gradient.view(-1, size, slots).mean(dim=1)
        return preference
