"""Triton functions that the kernels share, and what the host must know to launch them."""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Kernels run in Triton's interpreter, on a CPU. Its bf16 arithmetic is wrong, so it gets fp32."""

PHILOX_ROUNDS = 7
"""the fewest with which Philox4x32 passes BigCrush (Salmon et al., 2011)"""


@triton.jit
def bce(z, valid):
    """Softplus and sigmoid of logits fp32, 0 where not `valid`."""
    e = tl.exp(-tl.abs(z))
    softplus = tl.maximum(z, 0.0) + log1p(e)
    sigmoid = tl.where(z >= 0, 1.0, e) / (1.0 + e)
    return tl.where(valid, softplus, 0.0), tl.where(valid, sigmoid, 0.0)


@triton.jit
def log1p(e):
    """log(1 + e) for e in [0, 1], to 2e-7 of its value: a polynomial, which needs no special unit."""
    poly = -0.00325637846
    poly = poly * e + 0.0199071616
    poly = poly * e - 0.0570642017
    poly = poly * e + 0.106142648
    poly = poly * e - 0.153118625
    poly = poly * e + 0.196781173
    poly = poly * e - 0.249545589
    poly = poly * e + 0.333300054
    poly = poly * e - 0.499999046
    poly = poly * e + 1
    return poly * e


@triton.jit
def to_bf16(value, noise):
    """fp32 `value` to bf16: the bits that go are added to `noise`, 16 bits, and what carries rounds up.

    Random noise rounds stochastically, `half_to_even(value)` to nearest. NaN and infinity stay what
    they are. By hand, because the interpreter's own cast cuts.
    """
    bits = value.to(tl.int32, bitcast=True)
    rounded = ((bits + (noise & 0xFFFF)) & -65536).to(tl.float32, bitcast=True)
    finite = (bits & 0x7F800000) != 0x7F800000
    return tl.where(finite, rounded, value).to(tl.bfloat16)


@triton.jit
def half_to_even(value):
    """The noise with which `to_bf16` rounds to nearest, ties to even."""
    return 0x7FFF + ((value.to(tl.int32, bitcast=True) >> 16) & 1)


@triton.jit
def store_rounded(pointer, value, noise, mask, STOCHASTIC: tl.constexpr):
    """Store fp32 `value` in the pointer's dtype; `noise` int32 is used where STOCHASTIC, bf16 only."""
    if pointer.dtype.element_ty == tl.bfloat16:
        if STOCHASTIC:
            tl.store(pointer, to_bf16(value, noise), mask=mask)
        else:
            tl.store(pointer, to_bf16(value, half_to_even(value)), mask=mask)
    else:
        tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def random_row(seed, step, row, ROUNDS: tl.constexpr):
    """int32 noise [G] for rows int64 [G] of a tensor, from Philox at (seed, step)."""
    low = (row & 0xFFFFFFFF).to(tl.uint32)
    zero = low * 0
    first, _, _, _ = tl.philox(seed, low, (row >> 32).to(tl.uint32), zero + step, zero, ROUNDS)
    return first.to(tl.int32, bitcast=True)


@triton.jit
def random_bits(seed, step, rows, G: tl.constexpr, F: tl.constexpr, ROUNDS: tl.constexpr):
    """int32 noise [G, F] for rows int64 [G] of a tensor of F columns; four numbers a Philox call."""
    column = tl.arange(0, F // 4)
    low = (rows & 0xFFFFFFFF).to(tl.uint32)[:, None] + tl.zeros([G, F // 4], tl.uint32)
    high = (rows >> 32).to(tl.uint32)[:, None] + tl.zeros([G, F // 4], tl.uint32)
    last = (1 + column).to(tl.uint32)[None, :] + tl.zeros([G, F // 4], tl.uint32)
    a, b, c, d = tl.philox(seed, low, high, high * 0 + step, last, ROUNDS)
    drawn = tl.join(tl.join(a, b), tl.join(c, d))
    return tl.reshape(drawn, [G, F]).to(tl.int32, bitcast=True)


@triton.jit
def sgd_update(value, velocity, gradient, lr, momentum, decay, HAS_MOMENTUM: tl.constexpr):
    """v <- momentum v + g + decay w; w <- w - lr v; all fp32. Returns w and v."""
    gradient += decay * value
    if HAS_MOMENTUM:
        gradient += momentum * velocity
    return value - lr * gradient, gradient


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; a few in the interpreter, so that programs get several groups."""
    if device.type != "cuda":
        return 3
    return torch.cuda.get_device_properties(device).multi_processor_count


def dot_dtype(dtype: torch.dtype) -> tl.dtype:
    """In which a kernel multiplies: the weights' dtype, but fp32 in the interpreter."""
    if INTERPRETED:
        return tl.float32
    return {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}[
        dtype
    ]
