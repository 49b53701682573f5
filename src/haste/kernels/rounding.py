"""Rounding fp32 to narrower formats, to nearest or stochastically.

Stochastic rounding to bf16 adds 16 uniform random bits below the ones that are kept and truncates:
the expected value is the fp32 value, so updates far below one bf16 step still move a weight on
average. E4M3 likewise, with 20 bits; its values are stored divided by FP8_SCALE. Random bits come from a
generator seeded by (seed, step, tensor), never from a constant.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor

FP8_SCALE = 1 / 64
"""E4M3 has steps of 2^-9 below 2^-6 and a largest value of 448: weights have steps of 2^-15, up to 7"""

FP8 = torch.float8_e4m3fn

ROUNDINGS = ("stochastic", "nearest")

_MASK = (1 << 64) - 1


def mix(*parts: int) -> int:
    """A 63-bit seed from integers such as (seed, step, tensor); splitmix64 over the parts."""
    state = 0
    # NumPy's integers are too narrow for the mask
    for part in map(operator.index, parts):
        state = (state ^ (part & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def generator(device: torch.device, *parts: int) -> torch.Generator:
    """A generator on `device` seeded with `mix(*parts)`."""
    return torch.Generator(device).manual_seed(mix(*parts))


def seed_torch(*parts: int) -> None:
    """Seed torch's own generators, of the CPU and of GPUs in use, with `mix(*parts)`.

    As `torch.manual_seed`, which formats the stack for each kind of device that is not there: 0.3 ms and more a call.
    """
    seed = mix(*parts)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def dequantize(value: Tensor) -> Tensor:
    """Stored values as fp32."""
    return value.float() * FP8_SCALE if value.dtype == FP8 else value.float()


def storage_view(value: Tensor) -> Tensor:
    """A view of stored values in a dtype that kernels and torch functions take: E4M3 as its bits (uint8, 0
    is 0), other dtypes unchanged."""
    return value.view(torch.uint8) if value.dtype == FP8 else value


def round_to(
    value: Tensor, dtype: torch.dtype, rounding: str, random: torch.Generator | None
) -> Tensor:
    """fp32 `value` in `dtype`; `rounding` is "stochastic" (bf16 and E4M3 only, others round to nearest)
    or "nearest". NaN stays NaN and infinity infinity, except that E4M3 saturates at its largest
    value."""
    if dtype == FP8:
        return _to_fp8(value, rounding, random)
    if dtype != torch.bfloat16 or rounding == "nearest":
        return value.to(dtype)
    noise = torch.randint(
        0, 1 << 16, value.shape, dtype=torch.int32, device=value.device, generator=random
    )
    bits = value.contiguous().view(torch.int32)
    rounded = (bits + noise).bitwise_and_(-(1 << 16)).view(torch.float32)
    return torch.where(torch.isfinite(value), rounded, value).to(torch.bfloat16)


def _to_fp8(value: Tensor, rounding: str, random: torch.Generator | None) -> Tensor:
    scaled = (value / FP8_SCALE).clamp(-448, 448)
    if rounding == "stochastic":
        # the distance of neighbouring E4M3 values: 2^(e - 3), and 2^-9 below 2^-6
        exponent = torch.frexp(scaled).exponent.clamp(min=-5) - 1
        step = torch.ldexp(torch.ones_like(scaled), exponent - 3)
        noise = torch.rand(value.shape, device=value.device, generator=random)
        scaled = (torch.floor(scaled / step + noise) * step).clamp(-448, 448)
    return scaled.to(FP8)
