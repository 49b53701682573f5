"""Dropout in Triton, its random numbers a function of (seed, step, element)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels.triton.common import PHILOX_ROUNDS, cast, load_scalar, random_row

BLOCK = 1024


@triton.jit(do_not_specialize=["seed", "step"])
def _scale_or_zero(
    x_ptr, out_ptr, total, threshold, scale, seed, step, BLOCK: tl.constexpr, ROUNDS: tl.constexpr
):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < total
    value = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    noise = random_row(seed, load_scalar(step), offsets, ROUNDS)
    value = tl.where(noise >= threshold, value * scale, 0.0)
    tl.store(out_ptr + offsets, cast(value, out_ptr.dtype.element_ty), mask=inside)


def scaled_or_zero(values: Tensor, p: float, seed: int, step: int | Tensor) -> Tensor:
    """See `haste.kernels.dropout.dropout`."""
    values = values.contiguous()
    out = torch.empty_like(values)
    # a random int32 lies below it with probability p
    threshold = round(p * 2**32) - 2**31
    _scale_or_zero[(triton.cdiv(values.numel(), BLOCK),)](
        values, out, values.numel(), threshold, 1 / (1 - p), seed, step,
        BLOCK=BLOCK, ROUNDS=PHILOX_ROUNDS,
    )  # fmt: skip
    return out
