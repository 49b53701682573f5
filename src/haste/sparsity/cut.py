"""The lowest of many scores that never lie in memory together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_HALF = 16
_VALUES = 1 << _HALF
"""of half of a number's 32 bits"""


class Cut:
    """Takes exactly `count` of the lowest scores, block by block; of equal ones the first.

    Scores are fp32 and at least 0, so that their bits, as integers, have their order.
    """

    def __init__(self, blocks: Callable[[], Iterable[Tensor]], count: int) -> None:
        """`blocks()` gives all scores, tensors of any shape, the same each time: it is called twice."""
        self._bits = -1
        """all scores below are taken, ..."""
        self._ties = 0
        """... and so many of those equal to it"""
        if count < 1:
            return
        high, left = _place((bits >> _HALF for bits in _bits_of(blocks)), count)
        inside = ((bits & (_VALUES - 1))[(bits >> _HALF) == high] for bits in _bits_of(blocks))
        low, self._ties = _place(inside, left)
        self._bits = (high << _HALF) | low

    def take(self, score: Tensor) -> Tensor:
        """bool, shaped as `score`, the next block: which of it are taken."""
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


def _place(values: Iterable[Tensor], count: int) -> tuple[int, int]:
    """Of integers from 0 on, the one that is the `count`-th lowest, and its place among those equal."""
    counts: Tensor | None = None
    for part in values:
        found = torch.bincount(part, minlength=_VALUES)
        counts = found if counts is None else counts.add_(found)
    if counts is None:
        return 0, 0
    up_to = counts.cumsum(0)
    value = int(torch.searchsorted(up_to, count))
    return value, count - (int(up_to[value - 1]) if value else 0)
