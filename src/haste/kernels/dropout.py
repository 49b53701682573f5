"""Dropout whose mask is a function of (seed, step), so that no mask is stored for the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.kernels.checks import BACKENDS, FLOATS, check_one_of, check_share
from haste.kernels.rounding import generator


def dropout(values: Tensor, p: float, *, seed: int, step: int | Tensor, backend: str) -> Tensor:
    """`values` with a share `p` of them, in [0, 1), zeroed and the rest scaled by 1 / (1 - p).

    Of any shape. The same call on the gradient of the result gives the gradient of `values`. `backend`:
    triton or torch, with different random numbers; with triton `step` may be an int32 tensor of one
    element, as for a fused step.
    """
    check_one_of("dtype", values.dtype, FLOATS)
    check_one_of("backend", backend, BACKENDS)
    check_share("p", p)
    if backend == "triton":
        from haste.kernels.triton.dropout import scaled_or_zero

        return scaled_or_zero(values, p, seed, step)
    random = generator(values.device, seed, int(step))
    kept = torch.rand(values.shape, generator=random, device=values.device) >= p
    return values * kept.to(values.dtype).mul_(1 / (1 - p))
