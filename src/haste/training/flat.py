"""Parameters and their gradients as parts of two tensors, so that an optimiser steps in one launch, and
gradients get there in few."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ALIGNED = 64
"""elements to whose multiples parts are rounded up: matrix products want addresses that 16 bytes divide"""


def flatten(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """One parameter [n], of which all of `parameters` become parts, and its gradient.

    They must share device and dtype. They keep their values and shapes, and from now on their
    gradients are there all the time and begin at 0; `backward` writes them. An optimiser that works
    element by element does for the whole what it does for each; elements between parts are 0 and have
    gradients of 0.
    """
    sizes = [-(-parameter.numel() // ALIGNED) * ALIGNED for parameter in parameters]
    like = parameters[0]
    whole = nn.Parameter(torch.zeros(sum(sizes), dtype=like.dtype, device=like.device))
    whole.grad = torch.zeros_like(whole)
    places = zip(parameters, whole.detach().split(sizes), whole.grad.split(sizes), strict=True)
    for parameter, values, gradient in places:
        part = values[: parameter.numel()].view(parameter.shape)
        part.copy_(parameter.detach())
        parameter.data = part
        parameter.grad = gradient[: parameter.numel()].view(parameter.shape)
    return whole


def backward(output: Tensor, gradient: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Gradients of `parameters`, of which some are parts of one: those are overwritten in place.

    torch's own `output.backward` would sum each in a launch of its own, onto what must be zeroed before.
    A gradient that is there becomes zero where `output` does not depend on its parameter: that of an
    earlier step would be applied again.
    """
    # in this thread: on a GPU, products keep a workspace of 32 MiB for each thread that takes them
    with torch.autograd.set_multithreading_enabled(False):
        gradients = torch.autograd.grad(output, parameters, gradient, allow_unused=True)
    targets: list[Tensor] = []
    values: list[Tensor] = []
    unused: list[Tensor] = []
    for parameter, value in zip(parameters, gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = value
        elif value is None:
            unused.append(parameter.grad)
        else:
            targets.append(parameter.grad)
            values.append(value)
    if targets:
        torch._foreach_copy_(targets, values)
    if unused:
        torch._foreach_zero_(unused)
