"""Parameters and their gradients as parts of two tensors, so that an optimiser steps in one launch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

ALIGNED = 64
"""numbers to whose multiples parts are rounded up: products want addresses that 16 bytes divide"""


def flatten(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """One parameter, [n] of numbers, of which all of `parameters` become parts, and its gradient.

    They must share device and dtype. They keep their values and shapes, and from now on their
    gradients are there all the time, begin at 0 and are summed in place. An optimiser that works
    number by number does for the whole what it does for each; numbers between parts are 0 and have
    gradients of 0.
    """
    sizes = [-(-each.numel() // ALIGNED) * ALIGNED for each in parameters]
    like = parameters[0]
    whole = nn.Parameter(torch.zeros(sum(sizes), dtype=like.dtype, device=like.device))
    whole.grad = torch.zeros_like(whole)
    places = zip(parameters, whole.detach().split(sizes), whole.grad.split(sizes), strict=True)
    for each, values, gradient in places:
        own = values[: each.numel()].view(each.shape)
        own.copy_(each.detach())
        each.data = own
        each.grad = gradient[: each.numel()].view(each.shape)
    return whole
