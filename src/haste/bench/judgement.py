"""How far a kernel's results may be from those of fp64: errors, bounds and the random inputs of checks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from haste.bench.cases import Results
from haste.kernels.rounding import dequantize

FACTOR = 1.5
"""largest error of a kernel, as a multiple of plain torch's"""
TINY = 2e-3
"""relative error of a single rounding to bf16; bounds are not below it"""
TWO_ROUNDINGS = 5e-3


@dataclass(frozen=True)
class Judgement:
    """How one result compares with its bound."""

    result: str
    error: float
    """||got - want|| / ||want||, want in fp64; for a share of random events, the distance to its
    probability"""
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound; NaN is not."""
        return self.error <= self.bound


def relative_error(got: Tensor, want: Tensor) -> float:
    """||got - want|| / ||want|| in fp64."""
    exact = got if got.dtype == torch.float64 else dequantize(got).double()
    return float((exact - want).norm() / want.norm().clamp(min=1e-30))


def worst(judgements: Iterable[Judgement]) -> Judgement:
    """The first whose error is above its bound; if there is none, the one with the largest ratio of error to bound.

    A bound of 0 counts as 1: an error within it is 0.
    """
    return max(
        judgements,
        key=lambda judgement: (
            judgement.error / (judgement.bound or 1.0) if judgement.passed else math.inf
        ),
    )


def compare(got: Results, plain: Results, want: Results) -> Iterator[Judgement]:
    """Results of a kernel, of plain torch at the same precision, which gives the bounds, and of fp64."""
    for name, value in want.items():
        bound = max(FACTOR * relative_error(plain[name], value), TINY)
        yield Judgement(name, relative_error(got[name], value), bound)


def share(result: str, hits: Tensor, p: float) -> Judgement:
    """Whether the share of true values in bool `hits` is p, within five binomial standard deviations."""
    bound = 5 * (p * (1 - p) / hits.numel()) ** 0.5
    return Judgement(result, abs(float(hits.double().mean()) - p), bound)


class Random:
    """Random values that are the same on every device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        """In bf16."""
        return torch.randn(shape, generator=self.generator).to(self.device, torch.bfloat16)

    def uniform(self, *shape: int) -> Tensor:
        """In fp32, between 0 and 1."""
        return torch.rand(shape, generator=self.generator).to(self.device)
