"""The sparse layer: labels read F features named by index sets, one per label or per group of labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels import torch_backend
from haste.kernels.api import group_fused_step, product
from haste.kernels.checks import check_count
from haste.kernels.loss import bce_sum
from haste.kernels.reference import block_index
from haste.kernels.rounding import dequantize, storage_view
from haste.kernels.state import Positives, StepContext
from haste.layers.base import LayerOptions, LinearRows, RewireStats, StepResult
from haste.layers.connectivity import StreamingBottomK, prune_mask, regrow_, sample_indices

BLOCK = 1 << 22
"""weights that are rewired together"""
KEPT = 1 << 24
"""scores that are computed once and kept in memory; more are computed in each of the passes over them"""


class Sparse(LinearRows):
    """z_l = <w_l, h[I_g(l)]> + b_l with g(l) = l // group_size: weights [L, F], indices [K, F / block_size].

    A group size of 1 is standard fixed fan-in, an index set for each label; larger ones are the tail of
    the method. An index names an aligned block of `block_size` features: above 1 it is the block-sparse baseline.
    """

    indices: Tensor

    def __init__(
        self,
        n_features: int,
        n_labels: int,
        fan_in: int,
        options: LayerOptions,
        random: torch.Generator,
        *,
        group_size: int = 1,
        block_size: int = 1,
    ) -> None:
        for name, value in (
            ("fan_in", fan_in),
            ("group_size", group_size),
            ("block_size", block_size),
        ):
            check_count(name, value)
        if fan_in > n_features:
            raise KernelError(
                f"fan_in: {fan_in} is more than the {n_features} features the layer reads; lower fan_in."
            )
        if n_features % block_size or fan_in % block_size:
            raise KernelError(
                f"block_size: {block_size} must divide both fan_in ({fan_in}) and the features ({n_features})."
            )
        super().__init__(n_features, n_labels, fan_in, options, random.device)
        self.group_size = group_size
        self.block_size = block_size
        indices = sample_indices(
            -(-n_labels // group_size),
            fan_in // block_size,
            n_features // block_size,
            random,
            with_replacement=options.with_replacement,
        )
        self.register_buffer("indices", indices)
        self.fill_uniform(fan_in, random)

    @property
    def index(self) -> Tensor:
        """int32 [K, F]: the features that each group reads."""
        return self.indices if self.block_size == 1 else block_index(self.indices, self.block_size)

    def step(self, features: Tensor, positives: Positives, context: StepContext) -> StepResult:
        """See OutputLayer."""
        self.check(features)
        options = self.options
        loss, dx = group_fused_step(
            features, self.state, self.indices, positives, context, options.sgd,
            group_size=self.group_size, block_size=self.block_size,
            unique_indices=not options.with_replacement,
            # the sums of fixed fan-in always have a fixed order
            deterministic=options.deterministic and self.group_size > 1,
            loss_dtype=options.loss_dtype, backend=options.backend,
        )  # fmt: skip
        return StepResult(loss, dx)

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer. Slices that begin inside a group are allowed."""
        self.check(features, rows)
        first, last = rows.start // self.group_size, -(-rows.stop // self.group_size)
        begin = first * self.group_size
        labels = slice(begin, rows.stop)
        logits = product(
            features, self.weight[labels], self.indices[first:last], self.bias[labels], self.group_size,
            self.block_size, not self.options.with_replacement, False, self.options.backend, torch.float32,
        )  # fmt: skip
        return logits[:, rows.start - begin :]

    def topk(
        self, features: Tensor, k: int, labels_per_chunk: int = 65536
    ) -> tuple[Tensor, Tensor]:
        """See OutputLayer."""
        if self.options.backend == "torch" or self.group_size == 1 or k > self.n_labels:
            return super().topk(features, k, labels_per_chunk)
        self.check(features)
        check_count("k", k)
        from haste.kernels.triton import group_topk

        return group_topk.topk(
            features, self.weight, self.indices, self.bias, k,
            group_size=self.group_size, block_size=self.block_size,
        )  # fmt: skip

    def rewire(
        self,
        random: torch.Generator,
        features: Tensor | None = None,
        positives: Positives | None = None,
    ) -> RewireStats:
        """Prune the indices with the lowest mean |weight| over their group's labels and regrow as many.

        New weights are 0, and so is their momentum unless `reset_momentum` is off. Works in blocks of
        groups, without a temporary of the size of the weights.
        """
        options = self.options
        if options.growth == "gradient":
            self.check_gradient(features, positives)
        scores = self._scores
        if self.indices.numel() <= KEPT:
            kept = list(self._scores())

            def scores() -> list[Tensor]:
                return kept

        lowest = None
        if options.scope == "global":
            lowest = StreamingBottomK(scores, int(options.fraction * self.indices.numel()))
        cleared = [self.weight]
        if self.momentum is not None and options.reset_momentum:
            cleared.append(self.momentum)
        moved = torch.zeros((), dtype=torch.int64, device=self.indices.device)
        for (groups, labels), score in zip(self._group_blocks(), scores(), strict=True):
            pruned = lowest.take(score) if lowest else prune_mask(score, options.fraction, "group")
            preference = None
            if options.growth == "gradient":
                preference = self._gradient_by_index(features, positives, labels)
            regrow_(
                self.indices[groups],
                pruned,
                self.n_features // self.block_size,
                random,
                with_replacement=options.with_replacement,
                preference=preference,
            )
            for values in cleared:
                self._clear(values, labels, pruned)
            moved += pruned.sum()
        return RewireStats(indices=self.indices.numel(), moved=int(moved))

    def _scores(self) -> Iterator[Tensor]:
        """fp32 [K, F / block_size]: mean |weight| of each index over its group's labels (and its block), by
        blocks of groups."""
        for _, labels in self._group_blocks():
            rows = dequantize(self.weight[labels]).abs()
            if self.block_size > 1:
                rows = rows.view(len(rows), -1, self.block_size).mean(dim=2)
            size = min(self.group_size, len(rows))
            yield rows.view(-1, size, rows.shape[1]).mean(dim=1)

    def _clear(self, values: Tensor, labels: slice, pruned: Tensor) -> None:
        rows = storage_view(values)[labels]
        size = min(self.group_size, len(rows))
        mask = pruned.repeat_interleave(self.block_size, dim=1).repeat_interleave(size, dim=0)
        rows.masked_fill_(mask, 0)

    def _group_blocks(self) -> list[tuple[slice, slice]]:
        """Slices (groups, labels) of blocks of whole groups; a short last group is a block of its own."""
        whole = self.n_labels // self.group_size
        size = max(1, BLOCK // (self.group_size * self.weight.shape[1]))
        spans = [(begin, min(begin + size, whole)) for begin in range(0, whole, size)]
        if self.n_labels % self.group_size:
            spans.append((whole, whole + 1))
        return [
            (slice(a, b), slice(a * self.group_size, min(b * self.group_size, self.n_labels)))
            for a, b in spans
        ]

    def _gradient_by_index(self, features: Tensor, positives: Positives, labels: slice) -> Tensor:
        """fp32 [K, n]: mean |dz^T h| of each of n candidate indices over the labels of each group of a block."""
        features = features.float()
        candidates = self.n_features // self.block_size
        logits = self.logits(features, labels).t().contiguous()
        _, dz = bce_sum(logits, *torch_backend.positives_of(positives, labels))
        gradient = (dz @ features).abs()
        if self.block_size > 1:
            gradient = gradient.view(len(gradient), candidates, self.block_size).mean(dim=2)
        size = min(self.group_size, len(gradient))
        return gradient.view(-1, size, candidates).mean(dim=1)
