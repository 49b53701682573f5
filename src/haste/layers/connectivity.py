"""Index sets, the features that each group of labels (or each label) reads: sampling, pruning, regrowing.

An index tensor int32 [K, S] has one row per group; its S indices name features, or blocks of features.
Sampled without replacement a row is a set. All functions process blocks of groups, so that no temporary
has K x n elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from haste.distributed import ALONE, Ranks
from haste.errors import KernelError
from haste.kernels.checks import check_number, check_one_of
from haste.kernels.state import RowRange, tiles

_BLOCK_ELEMENTS = 1 << 22
_HALF = 16
_VALUES = 1 << _HALF
"""of half of the 32 bits of a score"""


def sample_indices(
    groups: int,
    count: int,
    n: int,
    random: torch.Generator | None,
    *,
    with_replacement: bool = False,
    part: RowRange | None = None,
) -> Tensor:
    """int32 [groups, count] drawn uniformly from 0..n-1, each row sorted; of these only the rows `part`.

    Without `random` nothing is drawn: the result is on the meta device.

    Raises KernelError when a set of `count` cannot be drawn from `n`.
    """
    if count > n:
        raise KernelError(
            f"fan-in: {count} indices do not fit in {n} choices; lower fan_in or widen the features."
        )
    part = part or RowRange(0, groups, groups)
    if random is None:
        return torch.empty(len(part), count, dtype=torch.int32, device="meta")
    index = torch.empty(len(part), count, dtype=torch.int32, device=random.device)
    for block in blocks(groups, n):
        size = block.stop - block.start
        inside, rows = part.overlap(block)
        if with_replacement:
            drawn = torch.randint(n, (size, count), generator=random, device=random.device)
            chosen = drawn[inside]
        else:
            keys = torch.rand(size, n, generator=random, device=random.device)
            chosen = keys[inside].topk(count).indices
        index[rows] = chosen.sort(dim=1).values.to(torch.int32)
    return index


def bottom_k_mask(score: Tensor, count: int) -> Tensor:
    """bool, shaped as `score`: exactly `count` elements of the lowest score."""
    chosen = torch.zeros_like(score, dtype=torch.bool)
    flat = score.flatten().topk(count, largest=False, sorted=False).indices
    chosen.view(-1)[flat] = True
    return chosen


def prune_mask(score: Tensor, fraction: float, scope: str) -> Tensor:
    """bool [K, S]: the `fraction` (rounded down) of indices with the lowest score, over all groups
    (`scope` "global") or in each ("group")."""
    check_number("fraction", fraction, 0, 1)
    check_one_of("scope", scope, ("global", "group"))
    if scope == "global":
        return bottom_k_mask(score, int(fraction * score.numel()))
    count = int(fraction * score.shape[1])
    chosen = torch.zeros_like(score, dtype=torch.bool)
    return chosen.scatter_(1, score.topk(count, largest=False).indices, True)


def regrow_(
    index: Tensor,
    pruned: Tensor,
    n: int,
    random: torch.Generator,
    *,
    with_replacement: bool = False,
    preference: Tensor | None = None,
    elsewhere: tuple[int, int] = (0, 0),
) -> None:
    """Give each pruned index a new feature, in place.

    A row never names a feature twice: features that it keeps are excluded, and features just pruned are
    taken only when no others are left. New ones are uniform, or those of largest `preference` fp32
    [K, n] >= 0. With replacement they are uniform over all features, also those that the row has.
    `elsewhere`: rows with a pruned index that other ranks have, before these and after; random numbers are
    drawn for them, too, and ignored.
    """
    changed = pruned.any(dim=1).nonzero().flatten()
    total = sum(elsewhere) + len(changed)
    local = RowRange(elsewhere[0], elsewhere[0] + len(changed), total)
    for block in blocks(total, n):
        size = block.stop - block.start
        inside, part = local.overlap(block)
        rows = changed[part]
        row_pruned = pruned[rows]
        current = index[rows].long()
        if with_replacement:
            drawn = torch.randint(n, (size, index.shape[1]), generator=random, device=index.device)
            new = drawn[inside]
        else:
            key = torch.rand(size, n, generator=random, device=index.device)[inside]
            if not len(rows):
                continue
            if preference is not None:
                # random numbers only break ties
                key = preference[rows].double() + 1e-12 * key.double()
            key = key - key.amin()
            below_all = torch.where(row_pruned, -1.0, -2.0).to(key.dtype)
            key.scatter_(1, current, below_all)
            best = key.topk(current.shape[1]).indices
            # the r-th pruned index of a row takes its r-th best candidate
            new = best.gather(1, (row_pruned.cumsum(1) - 1).clamp(min=0))
        index[rows] = torch.where(row_pruned, new, current).to(index.dtype)


def blocks(groups: int, width: int) -> list[slice]:
    """Slices of groups whose [block, width] temporaries have at most _BLOCK_ELEMENTS elements."""
    return tiles(groups, max(1, _BLOCK_ELEMENTS // max(width, 1)))


class StreamingBottomK:
    """Selects exactly the `count` lowest of many scores, block by block, so that they are never in memory
    together; of equal ones the first.

    Scores are fp32 and at least 0, so that their bits, as integers, are in the same order. Of several ranks
    each has a part of the scores, those of the first rank first.
    """

    def __init__(
        self, blocks: Callable[[], Iterable[Tensor]], count: int, ranks: Ranks = ALONE
    ) -> None:
        """`blocks()` yields all scores of this rank, fp32 tensors of any shape; it is called twice and must
        repeat itself. `count`: over all ranks."""
        self._bits = -1
        """all scores below these bits are taken, ..."""
        self._ties = 0
        """... and this many of those equal to them"""
        if count < 1:
            return
        high, left, _ = _kth_lowest((bits >> _HALF for bits in _bits_of(blocks)), count, ranks)
        inside = ((bits & (_VALUES - 1))[(bits >> _HALF) == high] for bits in _bits_of(blocks))
        low, ties, equal = _kth_lowest(inside, left, ranks)
        self._ties = max(0, ties - sum(equal[: ranks.rank]))
        self._bits = (high << _HALF) | low

    def take(self, score: Tensor) -> Tensor:
        """bool, shaped as `score`, the next block: the elements that are selected."""
        bits = score.contiguous().view(torch.int32)
        taken = bits < self._bits
        if self._ties:
            equal = bits == self._bits
            chosen = equal & (equal.flatten().cumsum(0).view(equal.shape) <= self._ties)
            self._ties -= int(chosen.sum())
            taken |= chosen
        return taken


def _bits_of(blocks: Callable[[], Iterable[Tensor]]) -> Iterable[Tensor]:
    return (block.contiguous().flatten().view(torch.int32) for block in blocks())


def _kth_lowest(values: Iterable[Tensor], count: int, ranks: Ranks) -> tuple[int, int, list[int]]:
    """The `count`-th lowest of integers >= 0 over all ranks, its rank among those equal to it, and how many
    of these each rank has."""
    counts: Tensor | None = None
    for part in values:
        part_counts = torch.bincount(part, minlength=_VALUES)
        counts = part_counts if counts is None else counts.add_(part_counts)
    if counts is None:
        return 0, 0, [0]
    by_rank = ranks.stack(counts)
    cumulative = by_rank.sum(0).cumsum(0)
    value = int(torch.searchsorted(cumulative, count))
    below = int(cumulative[value - 1]) if value else 0
    return value, count - below, by_rank[:, value].tolist()
