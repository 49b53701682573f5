"""Whether a kernel is right: its error against that of plain torch at the same precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from haste.benchmarks.cases import Case
from haste.kernels.rounding import widen

FACTOR = 1.5
"""times plain torch's error that a kernel's may be"""
TINY = 2e-3
"""relative error of a single rounding to bf16, below which no kernel is asked to be"""


@dataclass(frozen=True)
class Judgement:
    """The result that comes nearest to its bound, or is furthest beyond it."""

    result: str
    error: float
    """of the kernel: ||got - want|| / ||want||, want in fp64"""
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error keeps to the bound; NaN does not."""
        return self.error <= self.bound


def judge(case: Case) -> Judgement:
    """Run a case once and compare all it gives with fp64 and with plain bf16."""
    want, plain = case.answers()
    got = case.run()
    found = []
    for name, value in want.items():
        bound = max(FACTOR * relative_error(plain[name], value), TINY)
        found.append(Judgement(name, relative_error(got[name], value), bound))
    wrong = [each for each in found if not each.passed]
    return wrong[0] if wrong else max(found, key=lambda each: each.error / each.bound)


def relative_error(got: Tensor, want: Tensor) -> float:
    """||got - want|| / ||want|| in fp64."""
    wide = got.double() if got.dtype == torch.float64 else widen(got).double()
    return float((wide - want).norm() / want.norm().clamp(min=1e-30))
