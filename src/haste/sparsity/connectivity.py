"""Index sets: which features each unit (a label or a group of labels) reads.

An index tensor int32 [U, S] has one row a unit and S slots; slots name features, or runs of
features. Drawn without replacement a row is a set. Everything works in blocks of units, so no
temporary grows with U x n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels.checks import check_index, check_number, check_one_of

_BLOCK_ELEMENTS = 1 << 22


def draw(
    units: int, slots: int, n: int, random: torch.Generator, *, with_replacement: bool = False
) -> Tensor:
    """int32 [units, slots] drawn uniformly from 0..n-1, each row sorted.

    Raises KernelError when a set of `slots` cannot be drawn from `n`.
    """
    if slots > n:
        raise KernelError(
            f"fan-in: {slots} slots do not fit in {n} choices; lower fan_in or widen the features."
        )
    index = torch.empty(units, slots, dtype=torch.int32, device=random.device)
    for rows in blocks(units, n):
        size = rows.stop - rows.start
        if with_replacement:
            chosen = torch.randint(n, (size, slots), generator=random, device=random.device)
        else:
            chosen = torch.rand(size, n, generator=random, device=random.device).topk(slots).indices
        index[rows] = chosen.sort(dim=1).values.to(torch.int32)
    return index


def check(index: Tensor, n: int, *, with_replacement: bool = False) -> None:
    """Raise KernelError unless all slots lie in 0..n-1 and, as sets, name each feature once."""
    check_index("index", index, n)
    if not with_replacement and duplicate_slots(index):
        raise KernelError(
            "index: a row names a feature twice; draw index sets without replacement."
        )


def duplicate_slots(index: Tensor) -> int:
    """Slots that repeat a feature their row already names."""
    ordered = index.sort(dim=1).values
    return int((ordered[:, 1:] == ordered[:, :-1]).sum())


def lowest(score: Tensor, count: int) -> Tensor:
    """bool, shaped as `score`: exactly `count` elements of the lowest score."""
    chosen = torch.zeros_like(score, dtype=torch.bool)
    flat = score.flatten().topk(count, largest=False, sorted=False).indices
    chosen.view(-1)[flat] = True
    return chosen


def weakest(score: Tensor, fraction: float, scope: str) -> Tensor:
    """bool [U, S]: the `fraction` (rounded down) of slots with the lowest score, over all units
    (`scope` "global") or in each ("group")."""
    check_number("fraction", fraction, 0, 1)
    check_one_of("scope", scope, ("global", "group"))
    if scope == "global":
        return lowest(score, int(fraction * score.numel()))
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
) -> None:
    """Give each pruned slot a new feature, in place.

    A row never names a feature twice: kept features are out, and features just pruned come back only
    when nothing else is left. New ones are uniform, or those of largest `preference` [U, n] >= 0.
    With replacement they are uniform over all features, whatever the row already has.
    """
    touched = pruned.any(dim=1).nonzero().flatten()
    for part in blocks(len(touched), n):
        rows = touched[part]
        lost = pruned[rows]
        current = index[rows].long()
        if with_replacement:
            fresh = torch.randint(n, current.shape, generator=random, device=index.device)
        else:
            key = torch.rand(len(rows), n, generator=random, device=index.device)
            if preference is not None:
                # the random part only breaks ties
                key = preference[rows].double() + 1e-12 * key.double()
            key = key - key.amin()
            barred = torch.where(lost, -1.0, -2.0).to(key.dtype)
            key.scatter_(1, current, barred)
            best = key.topk(current.shape[1]).indices
            # the r-th pruned slot of a row takes its r-th best candidate
            fresh = best.gather(1, (lost.cumsum(1) - 1).clamp(min=0))
        index[rows] = torch.where(lost, fresh, current).to(index.dtype)


def blocks(units: int, width: int) -> list[slice]:
    """Slices of units whose [block, width] temporaries stay small."""
    size = max(1, _BLOCK_ELEMENTS // max(width, 1))
    return [slice(begin, min(begin + size, units)) for begin in range(0, units, size)]
