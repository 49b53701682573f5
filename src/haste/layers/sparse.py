"""The sparse layer: labels read F features named by index sets, one per label or per group of labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from haste.distributed import ALONE, Ranks
from haste.errors import KernelError
from haste.kernels import torch_backend
from haste.kernels.api import group_fused_step, product
from haste.kernels.checks import check_count
from haste.kernels.loss import LOSSES
from haste.kernels.reference import block_index
from haste.kernels.rounding import dequantize, storage_view
from haste.kernels.state import Positives, RowRange, StepContext, tiles
from haste.layers.base import Examples, LayerOptions, LinearRows, RewireStats, StepResult
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
        random: torch.Generator | None,
        *,
        group_size: int = 1,
        block_size: int = 1,
        ranks: Ranks = ALONE,
    ) -> None:
        group_size = check_count("group_size", group_size)
        block_size = check_count("block_size", block_size)
        fan_in = check_count("fan_in", fan_in)
        if n_features % block_size or fan_in % block_size:
            raise KernelError(
                f"block_size: {block_size} must divide both fan_in ({fan_in}) and the features ({n_features})."
            )
        super().__init__(n_features, n_labels, fan_in, options, random, ranks, unit=group_size)
        self.group_size = group_size
        self.block_size = block_size
        indices = sample_indices(
            self.groups.total,
            fan_in // block_size,
            self.n_features // block_size,
            random,
            with_replacement=options.with_replacement,
            part=self.groups,
        )
        self.register_buffer("indices", indices)
        self.fill_uniform(fan_in, random)

    @property
    def groups(self) -> RowRange:
        """The groups of this rank's labels, which are rows of `indices`."""
        rows, size = self.rows, self.group_size
        return RowRange(rows.begin // size, -(-rows.end // size), -(-rows.total // size))

    def row_range(self, name: str) -> RowRange:
        """See LinearRows."""
        return self.groups if name == "indices" else self.rows

    @property
    def index(self) -> Tensor:
        """int32 [K, F]: the features that each group reads."""
        return self.indices if self.block_size == 1 else block_index(self.indices, self.block_size)

    def step(
        self, features: Tensor, positives: Positives[Tensor], context: StepContext
    ) -> StepResult:
        """See OutputLayer."""
        self.check(features)
        options = self.options
        loss, dx = group_fused_step(
            features, self.state, self.indices, positives, context, options.sgd,
            group_size=self.group_size, block_size=self.block_size,
            unique_indices=not options.with_replacement,
            # the sums of fixed fan-in always have a fixed order
            deterministic=options.deterministic and self.group_size > 1,
            loss_dtype=options.loss_dtype, loss=options.loss, backend=options.backend,
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

    def topk(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See OutputLayer."""
        if self.options.backend == "torch" or self.group_size == 1 or k > self.n_labels:
            return super().topk(features, k)
        self.check(features)
        k = check_count("k", k)
        from haste.kernels.triton import group_topk

        return group_topk.topk(
            features, self.weight, self.indices, self.bias, k,
            group_size=self.group_size, block_size=self.block_size,
        )  # fmt: skip

    def rewire(self, random: torch.Generator, examples: Examples | None = None) -> RewireStats:
        """Prune the indices with the lowest mean |weight| over their group's labels and regrow as many: a share of
        them, or those below the threshold.

        New weights are 0, and so is their momentum unless `reset_momentum` is off. Works in blocks of
        groups, without a temporary of the size of the weights.
        """
        options = self.options
        if options.growth == "gradient":
            features, positives = self.check_examples(examples)
        total = self.groups.total * self.indices.shape[1]
        kept = list(self._scores()) if self.indices.numel() <= KEPT else None

        def scores() -> Iterable[Tensor]:
            return self._scores() if kept is None else kept

        lowest = None
        if options.scope == "global" and not options.threshold:
            lowest = StreamingBottomK(scores, int(options.fraction * total), self.ranks)

        def pruned_blocks() -> Iterator[Tensor]:
            bottom_k = copy.copy(lowest)
            for score in scores():
                if options.threshold:
                    yield score < options.threshold
                    continue
                yield (
                    bottom_k.take(score)
                    if bottom_k
                    else prune_mask(score, options.fraction, "group")
                )

        cleared = [self.weight, *(self.weight_momenta if options.reset_momentum else [])]
        moved = torch.zeros((), dtype=torch.int64, device=self.indices.device)
        for (groups, labels), pruned, elsewhere in zip(
            self._group_blocks(), pruned_blocks(), self._elsewhere(pruned_blocks), strict=True
        ):
            preference = None
            if options.growth == "gradient" and len(pruned):
                preference = self._gradient_by_index(features, positives, labels)
            regrow_(
                self.indices[groups],
                pruned,
                self.n_features // self.block_size,
                random,
                with_replacement=options.with_replacement,
                preference=preference,
                elsewhere=elsewhere,
            )
            for values in cleared:
                self._clear(values, labels, pruned)
            moved += pruned.sum()
        return RewireStats(indices=total, moved=self.ranks.sum(int(moved)))

    def _elsewhere(self, pruned: Callable[[], Iterable[Tensor]]) -> list[tuple[int, int]]:
        """For each of the blocks of groups: how many groups with a `pruned` index the ranks before this one
        have, and those after it."""
        if self.ranks.size == 1:
            return [(0, 0)] * len(self._group_blocks())
        counts = self.ranks.stack(torch.stack([mask.any(dim=1).sum() for mask in pruned()]))
        rank = self.ranks.rank
        before, after = counts[:rank].sum(0).tolist(), counts[rank + 1 :].sum(0).tolist()
        return list(zip(before, after, strict=True))

    def _scores(self) -> Iterator[Tensor]:
        """fp32 [K, F / block_size]: mean |weight| of each index over its group's labels (and its block), by
        blocks of groups."""
        for _, labels in self._group_blocks():
            rows = dequantize(self.weight[labels]).abs()
            if not len(rows):
                yield rows.new_zeros(0, self.indices.shape[1])
                continue
            if self.block_size > 1:
                rows = rows.view(len(rows), -1, self.block_size).mean(dim=2)
            size = min(self.group_size, len(rows))
            yield rows.view(-1, size, rows.shape[1]).mean(dim=1)

    def _clear(self, values: Tensor, labels: slice, pruned: Tensor) -> None:
        rows = storage_view(values)[labels]
        size = max(1, min(self.group_size, len(rows)))
        mask = pruned.repeat_interleave(self.block_size, dim=1).repeat_interleave(size, dim=0)
        rows.masked_fill_(mask, 0)

    def _group_blocks(self) -> list[tuple[slice, slice]]:
        """Slices (groups, labels) of blocks of whole groups; a short last group is a block of its own.

        The blocks are of the whole layer, and of each there is what this rank has, perhaps nothing.
        """
        whole = self.rows.total // self.group_size
        spans = tiles(whole, max(1, BLOCK // (self.group_size * self.weight.shape[1])))
        if self.rows.total % self.group_size:
            spans.append(slice(whole, whole + 1))
        groups = [self.groups.overlap(span)[1] for span in spans]
        size = self.group_size
        return [
            (span, slice(span.start * size, min(span.stop * size, self.n_labels)))
            for span in groups
        ]

    def _gradient_by_index(
        self, features: Tensor, positives: Positives[Tensor], labels: slice
    ) -> Tensor:
        """fp32 [K, n]: mean |dz^T h| of each of n candidate indices over the labels of each group of a block."""
        features = features.float()
        candidates = self.n_features // self.block_size
        logits = self.logits(features, labels).t().contiguous()
        pairs = torch_backend.positives_of(positives, labels)
        _, dz = LOSSES[self.options.loss](logits, *pairs, torch.float32)
        gradient = (dz @ features).abs()
        if self.block_size > 1:
            gradient = gradient.view(len(gradient), candidates, self.block_size).mean(dim=2)
        size = min(self.group_size, len(gradient))
        return gradient.view(-1, size, candidates).mean(dim=1)
