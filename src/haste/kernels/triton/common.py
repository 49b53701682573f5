"""Triton functions that the kernels share, and what the host must know to launch them."""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels import rounding

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")
"""Kernels run in Triton's interpreter, on a CPU. Its bf16 arithmetic is wrong, so it gets fp32."""

FP8_SCALE = tl.constexpr(rounding.FP8_SCALE)

PHILOX_ROUNDS = 7
"""the fewest with which Philox4x32 passes BigCrush (Salmon et al., 2011)"""


@triton.jit
def _exp2(x):
    if INTERPRETED:
        return tl.exp2(x)
    return tl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _reciprocal(x):
    if INTERPRETED:
        return 1.0 / x
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def sigmoid(z):
    """Sigmoid of logits fp32, and e = exp(-|z|), from which `bce_rows` makes the loss."""
    e = _exp2(tl.abs(z) * -1.4426950408889634)
    return _reciprocal(1.0 + e) * tl.where(z >= 0, 1.0, e), e


@triton.jit
def _grow(p, q):
    return p + (q + p * q)


@triton.jit
def bce_rows(z, e):
    """Sum over axis 1 of max(z, 0) + log1p(e): the loss of negatives.

    One logarithm for 64 columns of a row: the sum of log1p(e) is log1p of P - 1, P the product of
    all 1 + e, and P - 1 grows by p + q + p q, which keeps the digits of small e.
    """
    positive = tl.sum(tl.maximum(z, 0.0), 1)
    # the interpreter reduces by such a function element by element
    if INTERPRETED:
        return positive + tl.sum(_log1p(e), 1)
    if e.shape[1] > 64:
        # the product of more could overflow
        parts = tl.reshape(e, [e.shape[0], e.shape[1] // 64, 64])
        return positive + tl.sum(_log1p(tl.reduce(parts, 2, _grow)), 1)
    return positive + _log1p(tl.reduce(e, 1, _grow))


@triton.jit
def _log1p(p):
    # to 3e-7 of its value for p >= 0: a polynomial up to 1, where the hardware's logarithm loses
    # the digits of small values
    q = tl.minimum(p, 1.0)
    poly = -0.00325637846
    poly = poly * q + 0.0199071616
    poly = poly * q - 0.0570642017
    poly = poly * q + 0.106142648
    poly = poly * q - 0.153118625
    poly = poly * q + 0.196781173
    poly = poly * q - 0.249545589
    poly = poly * q + 0.333300054
    poly = poly * q - 0.499999046
    poly = poly * q + 1
    return tl.where(p <= 1.0, poly * q, tl.log(1.0 + p))


@triton.jit
def to_bf16(value, noise):
    """fp32 `value` to bf16: 16 bits of `noise` are added to the bits that are cut; a carry rounds up.

    Random noise rounds stochastically, `half_to_even(value)` to nearest. NaN and infinity stay what
    they are. Written out, because the interpreter's cast truncates.
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
def cast(value, DTYPE: tl.constexpr):
    """fp32 `value` to nearest in DTYPE."""
    if INTERPRETED and tl.bfloat16 == DTYPE:
        wide = value.to(tl.float32)
        return to_bf16(wide, half_to_even(wide))
    return value.to(DTYPE)


@triton.jit
def to_fp8(value, noise):
    """fp32 `value` to the bits of E4M3 times FP8_SCALE, uint8; 20 bits of `noise` decide the rounding.

    Values beyond the largest, 448 FP8_SCALE, become it; NaN stays NaN.
    """
    scaled = tl.minimum(tl.abs(value) * (1.0 / FP8_SCALE), 448.0)
    # below 2^-6 the steps are 2^-9 wide, evenly, like those from 2^-6 to 2^-5
    even = scaled < 0.015625
    bits = tl.where(even, scaled + 0.015625, scaled).to(tl.int32, bitcast=True)
    code = ((bits + (noise & 0xFFFFF)) >> 20) - tl.where(even, 121 << 3, 120 << 3)
    code = tl.where(value == value, code, 0x7F)
    sign = (value.to(tl.int32, bitcast=True) >> 24) & 0x80
    return (code | sign).to(tl.uint8)


@triton.jit
def dequantize(value):
    """Stored values, uint8 being the bits of E4M3, as fp32."""
    if value.dtype == tl.uint8:
        if not INTERPRETED:
            return value.to(tl.float8e4nv, bitcast=True).to(tl.float32) * FP8_SCALE
        bits = value.to(tl.uint16)
        half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
        wide = half.to(tl.float16, bitcast=True).to(tl.float32) * (256.0 * FP8_SCALE)
        return tl.where((bits & 0x7F) == 0x7F, float("nan"), wide)
    return value.to(tl.float32)


@triton.jit
def to_dot_dtype(value, DOT_DTYPE: tl.constexpr):
    """Stored values in the dtype in which a product is taken."""
    if value.dtype == tl.uint8:
        if INTERPRETED:
            return dequantize(value).to(DOT_DTYPE)
        # exact: a power of two times four bits
        return (value.to(tl.float8e4nv, bitcast=True).to(tl.float16) * FP8_SCALE).to(DOT_DTYPE)
    return value.to(DOT_DTYPE)


@triton.jit
def store_rounded(pointer, value, noise, mask, STOCHASTIC: tl.constexpr):
    """Store fp32 `value` in the pointer's dtype (uint8: E4M3); `noise` int32 is used where STOCHASTIC,
    its lower 16 bits for bf16, its upper 20 for E4M3."""
    if pointer.dtype.element_ty == tl.bfloat16:
        if STOCHASTIC:
            tl.store(pointer, to_bf16(value, noise), mask=mask)
        else:
            tl.store(pointer, cast(value, tl.bfloat16), mask=mask)
    elif pointer.dtype.element_ty == tl.uint8:
        if STOCHASTIC:
            tl.store(pointer, to_fp8(value, noise >> 12), mask=mask)
        else:
            tl.store(pointer, to_fp8(value, noise * 0 + 0x80000), mask=mask)
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
def random_bits(seed, step, rows, first, G: tl.constexpr, F: tl.constexpr, ROUNDS: tl.constexpr):
    """int32 noise [G, F] for rows int64 [G] of a tensor, from its column `first`, a multiple of F, on;
    four values per Philox call."""
    a, b, c, d = _philox(seed, step, rows, first // 4, G, F // 4, ROUNDS)
    bits = tl.join(tl.join(a, b), tl.join(c, d))
    return tl.reshape(bits, [G, F]).to(tl.int32, bitcast=True)


@triton.jit
def random_halves(seed, step, rows, first, G: tl.constexpr, F: tl.constexpr, ROUNDS: tl.constexpr):
    """As `random_bits`, with 16 random bits in the lower half of each value: eight per Philox call."""
    a, b, c, d = _philox(seed, step, rows, first // 8, G, F // 8, ROUNDS)
    low = tl.join(tl.join(a, b), tl.join(c, d))
    high = tl.join(tl.join(a >> 16, b >> 16), tl.join(c >> 16, d >> 16))
    return tl.reshape(tl.join(low, high), [G, F]).to(tl.int32, bitcast=True)


@triton.jit
def _philox(seed, step, rows, first, G: tl.constexpr, C: tl.constexpr, ROUNDS: tl.constexpr):
    zero = tl.zeros([G, C], tl.uint32)
    low = (rows & 0xFFFFFFFF).to(tl.uint32)[:, None] + zero
    high = (rows >> 32).to(tl.uint32)[:, None] + zero
    call = (1 + first + tl.arange(0, C)).to(tl.uint32)[None, :] + zero
    return tl.philox(seed, low, high, zero + step, call, ROUNDS)


@triton.jit
def rounding_noise(
    seed, step, rows, first, FULL: tl.constexpr,
    G: tl.constexpr, F: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """Noise for rounding [G, F] values, with FULL also for their momenta or for E4M3."""
    if FULL:
        return random_bits(seed, step, rows, first, G, F, ROUNDS)
    return random_halves(seed, step, rows, first, G, F, ROUNDS)


@triton.jit
def load_scalar(value):
    """A scalar that is passed by value or by pointer.

    A captured CUDA graph is replayed with the arguments of its capture, so scalars that change from step
    to step are passed by pointer.
    """
    # in the interpreter a scalar is no tl.tensor; the two conditions are nested, because both are evaluated
    # when the kernel is compiled
    if isinstance(value, tl.tensor):  # noqa: SIM102
        if value.dtype.is_ptr():
            value = tl.load(value)
    return value


@triton.jit
def round_to_bf16(value):
    """fp32 `value` rounded to the nearest bf16 value, as fp32."""
    return to_bf16(value, half_to_even(value)).to(tl.float32)


@triton.jit
def bce_rows_bf16(z):
    """Sum over axis 1 of the loss of negatives, every intermediate result rounded to bf16."""
    e = round_to_bf16(tl.exp(-tl.abs(z)))
    return tl.sum(tl.maximum(z, 0.0) + round_to_bf16(tl.log(round_to_bf16(1.0 + e))), 1)


@triton.jit
def load_momentum(momentum_ptr, offsets, mask, gradient, HAS_MOMENTUM: tl.constexpr):
    """fp32 momentum, shaped as `gradient`; without one the gradient, which `sgd_update` does not read."""
    if HAS_MOMENTUM:
        return tl.load(momentum_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    return gradient


@triton.jit
def sgd_update(value, v, gradient, lr, momentum, decay, HAS_MOMENTUM: tl.constexpr):
    """v <- momentum v + g + decay w; w <- w - lr v; all fp32. Returns w and v."""
    gradient += decay * value
    if HAS_MOMENTUM:
        gradient += momentum * v
    return value - lr * gradient, gradient


@triton.jit
def load_index(index_ptr, group, F: tl.constexpr, BLOCK_SIZE: tl.constexpr):
    """int32 [F]: the features that a group reads, from index [K, F / BLOCK_SIZE]."""
    f = tl.arange(0, F)
    block = tl.load(index_ptr + group * (F // BLOCK_SIZE) + f // BLOCK_SIZE)
    return block * BLOCK_SIZE + f % BLOCK_SIZE


@triton.jit
def bce_of_negatives(z, b, batch, PADDED: tl.constexpr, BF16_LOSS: tl.constexpr):
    """Logits z fp32 [L, B] of documents b [B] as all negatives: z, dz [L, B] and the loss [L].

    PADDED: documents from `batch` on are padding, with zero loss and dz.
    """
    if BF16_LOSS:
        z = round_to_bf16(z)
    dz, e = sigmoid(z)
    if BF16_LOSS:
        dz = round_to_bf16(dz)
    if PADDED:
        is_document = (b < batch)[None, :]
        dz = tl.where(is_document, dz, 0.0)
        e = tl.where(is_document, e, 0.0)
        z = tl.where(is_document, z, -1e30)
    loss = bce_rows_bf16(z) if BF16_LOSS else bce_rows(z, e)
    return z, dz, loss


@triton.jit
def store_update(
    value_ptr, momentum_ptr, offsets, value, v, noise, mask,
    HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
):  # fmt: skip
    """Store fp32 `value` and its momentum `v` at `offsets`; `noise` int32 as in `store_rounded`, of which
    the momentum takes the upper 16 bits."""
    store_rounded(value_ptr + offsets, value, noise, mask, STOCHASTIC)
    if HAS_MOMENTUM:
        store_rounded(momentum_ptr + offsets, v, noise >> 16, mask, STOCHASTIC)


def num_sms(device: torch.device) -> int:
    """Multiprocessors of a GPU; 3 in the interpreter, so that a program gets several groups."""
    if device.type != "cuda":
        return 3
    return torch.cuda.get_device_properties(device).multi_processor_count


def dot_dtype(dtype: torch.dtype) -> tl.dtype:
    """The dtype in which a kernel multiplies: that of the weights, bf16 for E4M3; fp32 in the interpreter."""
    if INTERPRETED.value or dtype == torch.float32:
        return tl.float32
    return tl.float16 if dtype == torch.float16 else tl.bfloat16


def padded_columns(features: Tensor, dtype: torch.dtype, multiple: int) -> Tensor:
    """[H, Bp]: `features` [B, H] in a product's dtype, padded with zeros to a multiple of `multiple`."""
    batch, n_features = features.shape
    if dtype == torch.float8_e4m3fn:
        dtype = torch.bfloat16
    if batch % multiple == 0:
        return features.t().to(dtype).contiguous()
    columns = features.new_zeros(n_features, -(-batch // multiple) * multiple, dtype=dtype)
    columns[:, :batch] = features.t()
    return columns


def batch_tiles(batch: int, largest: int = 64) -> tuple[int, int]:
    """Documents per tile of the batch, and the number of tiles."""
    tile = max(16, min(largest, triton.next_power_of_2(batch)))
    return tile, triton.cdiv(batch, tile)


def dot_weight(weight: Tensor) -> torch.dtype:
    """The dtype in which weights are multiplied outside kernels: bf16 for E4M3."""
    return torch.bfloat16 if weight.element_size() == 1 else weight.dtype


def product(a: Tensor, b: Tensor) -> Tensor:
    """fp32 [M, N]: product of a [M, K] and b [K, N] of any float dtype."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.mm(a.float(), b.float())
