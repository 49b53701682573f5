"""Rounding fp32 to narrower formats, to nearest or stochastically.

Stochastic rounding to bf16 adds 16 uniform random bits below the ones that are kept and truncates:
the expected value is the fp32 value, so updates far below one bf16 step still move a weight on
average. Random bits come from a generator seeded by (seed, step, tensor), never from a constant.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def mix(*parts: int) -> int:
    """A 63-bit seed from integers such as (seed, step, tensor); splitmix64 over the parts."""
    state = 0
    for part in parts:
        state = (state ^ (part & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def generator(device: torch.device, *parts: int) -> torch.Generator:
    """A generator on `device` seeded with `mix(*parts)`."""
    return torch.Generator(device).manual_seed(mix(*parts))


def round_to(
    value: Tensor, dtype: torch.dtype, rounding: str, random: torch.Generator | None
) -> Tensor:
    """fp32 `value` in `dtype`; `rounding` is "stochastic" (bf16 only, others round to nearest) or
    "nearest". NaN and infinity stay what they are."""
    if dtype != torch.bfloat16 or rounding == "nearest":
        return value.to(dtype)
    noise = torch.randint(
        0, 1 << 16, value.shape, dtype=torch.int32, device=value.device, generator=random
    )
    bits = value.contiguous().view(torch.int32)
    rounded = (bits + noise).bitwise_and_(-(1 << 16)).view(torch.float32)
    return torch.where(torch.isfinite(value), rounded, value).to(torch.bfloat16)
