"""SGD with momentum and weight decay on a tile of a tensor, in place, in the tensor's own precision."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from haste.kernels.checks import check_number, check_one_of
from haste.kernels.rounding import ROUNDINGS, round_to, widen


@dataclass(frozen=True)
class Sgd:
    """Step sizes of one update: v <- momentum v + g + weight_decay w; w <- w - lr v."""

    lr: float | Tensor
    """a tensor, fp32 of one number, for kernels only"""
    momentum: float = 0.0
    weight_decay: float = 0.0
    rounding: str = "stochastic"

    def __post_init__(self) -> None:
        if not isinstance(self.lr, Tensor):
            check_number("lr", self.lr, 0, sys.float_info.max)
        check_number("momentum", self.momentum, 0, 1)
        check_number("weight_decay", self.weight_decay, 0, sys.float_info.max)
        check_one_of("rounding", self.rounding, ROUNDINGS)


def sgd_(
    value: Tensor,
    velocity: Tensor | None,
    gradient: Tensor,
    sgd: Sgd,
    random: torch.Generator | None,
) -> None:
    """Update `value` and `velocity` (same shape; None without momentum) in place.

    `gradient` is fp32 and is overwritten. Tensors narrower than fp32 are widened, updated and rounded
    back as `sgd.rounding` says.
    """
    wide = value.dtype == torch.float32
    current = value if wide else widen(value)
    if sgd.weight_decay:
        gradient.add_(current, alpha=sgd.weight_decay)
    if velocity is not None:
        if velocity.dtype == torch.float32:
            gradient = velocity.mul_(sgd.momentum).add_(gradient)
        else:
            gradient.add_(velocity.float(), alpha=sgd.momentum)
            velocity.copy_(round_to(gradient, velocity.dtype, sgd.rounding, random))
    if wide:
        value.add_(gradient, alpha=-sgd.lr)
    else:
        current = current.add_(gradient, alpha=-sgd.lr)
        value.copy_(round_to(current, value.dtype, sgd.rounding, random))
