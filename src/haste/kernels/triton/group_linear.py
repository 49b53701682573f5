"""The products of the group-shared layer in Triton, one at a time: forward, and both gradients.

For models that train by autograd; a training step of an output layer is faster by `group_step`, which
never writes [B, L]. The tiles are the same.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels.rounding import FP8, FP8_SCALE, storage_view
from haste.kernels.triton.common import (
    batch_tiles,
    cast,
    dot_dtype,
    dot_weight,
    load_index,
    num_sms,
    padded_columns,
    to_dot_dtype,
)
from haste.kernels.triton.densify import DenseDx
from haste.kernels.triton.group_step import COPIES, check_sizes
from haste.kernels.triton.route import Route, choose_route


@triton.jit
def _forward(
    x_ptr, w_ptr, index_ptr, bias_ptr, out_ptr, n_labels, batch, width, n_groups,
    G: tl.constexpr, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    BATCH_FIRST: tl.constexpr, DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, NUM_STAGES: tl.constexpr,
):  # fmt: skip
    """out [B, L] for this program's range of groups; BATCH_FIRST: the product's rows are documents."""
    per = tl.cdiv(n_groups, tl.num_programs(0))
    first = tl.program_id(0) * per
    f = tl.arange(0, F)
    for k in tl.range(first, tl.minimum(first + per, n_groups), num_stages=NUM_STAGES):
        idx = load_index(index_ptr, k, F, BLOCK_SIZE)
        rows = (k * G + tl.arange(0, G)).to(tl.int64)
        inside = rows < n_labels
        stored = tl.load(w_ptr + rows[:, None] * F + f[None, :], mask=inside[:, None], other=0)
        weight = to_dot_dtype(stored, DOT_DTYPE)
        if bias_ptr is None:
            bias = tl.zeros([G], tl.float32)
        else:
            bias = tl.load(bias_ptr + rows, mask=inside, other=0.0).to(tl.float32)
        for tile in tl.static_range(NUM_TILES):
            b = tile * BLOCK_B + tl.arange(0, BLOCK_B)
            gathered = tl.load(x_ptr + idx[:, None] * width + b[None, :]).to(DOT_DTYPE)
            if BATCH_FIRST:
                z = tl.dot(tl.trans(gathered), tl.trans(weight), input_precision=PRECISION)
                z += bias[None, :]
            else:
                z = tl.dot(weight, gathered, input_precision=PRECISION) + bias[:, None]
                z = tl.trans(z)
            offsets = b.to(tl.int64)[:, None] * n_labels + rows[None, :]
            mask = inside[None, :] & (b < batch)[:, None]
            tl.store(out_ptr + offsets, cast(z, out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward_dw(
    x_ptr, index_ptr, dz_ptr, dw_ptr, n_labels, batch, width, n_groups,
    G: tl.constexpr, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    FEATURES_FIRST: tl.constexpr, DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, NUM_STAGES: tl.constexpr,
):  # fmt: skip
    """dw [L, F] = dz^T times the gathered features, for this program's range of groups."""
    per = tl.cdiv(n_groups, tl.num_programs(0))
    first = tl.program_id(0) * per
    f = tl.arange(0, F)
    for k in tl.range(first, tl.minimum(first + per, n_groups), num_stages=NUM_STAGES):
        idx = load_index(index_ptr, k, F, BLOCK_SIZE)
        rows = (k * G + tl.arange(0, G)).to(tl.int64)
        inside = rows < n_labels
        dw = tl.zeros([F, G] if FEATURES_FIRST else [G, F], tl.float32)
        for tile in tl.static_range(NUM_TILES):
            b = tile * BLOCK_B + tl.arange(0, BLOCK_B)
            gathered = tl.load(x_ptr + idx[:, None] * width + b[None, :]).to(DOT_DTYPE)
            offsets = b.to(tl.int64)[:, None] * n_labels + rows[None, :]
            mask = inside[None, :] & (b < batch)[:, None]
            d = tl.load(dz_ptr + offsets, mask=mask, other=0.0).to(DOT_DTYPE)
            if FEATURES_FIRST:
                dw = tl.dot(gathered, d, dw, input_precision=PRECISION)
            else:
                dw = tl.dot(tl.trans(d), tl.trans(gathered), dw, input_precision=PRECISION)
        if FEATURES_FIRST:
            dw = tl.trans(dw)
        offsets = rows[:, None] * F + f[None, :]
        tl.store(dw_ptr + offsets, cast(dw, dw_ptr.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _backward_dx(
    w_ptr, index_ptr, dz_ptr, dx_ptr, n_labels, batch, width, n_groups, copy_size,
    G: tl.constexpr, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, NUM_STAGES: tl.constexpr, NUM_COPIES: tl.constexpr,
):  # fmt: skip
    """One of the copies of dx [H, Bp] += dz times the weights, by atomic sums."""
    program = tl.program_id(0)
    per = tl.cdiv(n_groups, tl.num_programs(0))
    first = program * per
    f = tl.arange(0, F)
    copy_ptr = dx_ptr + (program % NUM_COPIES).to(tl.int64) * copy_size
    for k in tl.range(first, tl.minimum(first + per, n_groups), num_stages=NUM_STAGES):
        idx = load_index(index_ptr, k, F, BLOCK_SIZE)
        rows = (k * G + tl.arange(0, G)).to(tl.int64)
        inside = rows < n_labels
        offsets = rows[:, None] * F + f[None, :]
        weight = to_dot_dtype(tl.load(w_ptr + offsets, mask=inside[:, None], other=0), DOT_DTYPE)
        for tile in tl.static_range(NUM_TILES):
            b = tile * BLOCK_B + tl.arange(0, BLOCK_B)
            offsets = b.to(tl.int64)[:, None] * n_labels + rows[None, :]
            mask = inside[None, :] & (b < batch)[:, None]
            d = tl.load(dz_ptr + offsets, mask=mask, other=0.0).to(DOT_DTYPE)
            dx = tl.dot(tl.trans(weight), tl.trans(d), input_precision=PRECISION)
            tl.atomic_add(copy_ptr + idx[:, None] * width + b[None, :], dx, sem="relaxed")


MAX_BATCH = 1024
"""documents per launch: the tiles of a batch are unrolled"""


def forward(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor | None,
    *,
    group_size: int,
    block_size: int = 1,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """[B, L] in `dtype` (default: that of the features); arguments as in `group_step.group_step`."""
    check_sizes(weight, index, group_size)
    batch, n_labels = features.shape[0], weight.shape[0]
    out = torch.empty(batch, n_labels, dtype=dtype or features.dtype, device=features.device)
    fan_in = weight.shape[1]
    for begin in range(0, batch, MAX_BATCH):
        part = features[begin : begin + MAX_BATCH]
        constants, programs, columns = _prepare(
            part, weight.dtype, fan_in, index, group_size, block_size
        )
        constants["NUM_STAGES"] = 1 if group_size >= 64 else constants["NUM_STAGES"]
        _forward[(programs,)](
            columns, storage_view(weight), index, bias, out[begin : begin + MAX_BATCH], n_labels,
            len(part), columns.shape[1], index.shape[0],
            BATCH_FIRST=fan_in <= 64 or group_size >= 64, **constants,
        )  # fmt: skip
    return out


def backward_dw(
    features: Tensor,
    dz: Tensor,
    index: Tensor,
    fan_in: int,
    *,
    group_size: int,
    block_size: int = 1,
    dtype: torch.dtype,
) -> Tensor:
    """[L, F] in `dtype`: dW for dz [B, L], contiguous, summed in fp32."""
    n_labels = dz.shape[1]
    whole = dz.shape[0] <= MAX_BATCH
    out_dtype = dtype if whole else torch.float32
    out = torch.empty(n_labels, fan_in, dtype=out_dtype, device=dz.device)
    total = None if whole else torch.zeros_like(out)
    for begin in range(0, dz.shape[0], MAX_BATCH):
        part = features[begin : begin + MAX_BATCH]
        constants, programs, columns = _prepare(part, dtype, fan_in, index, group_size, block_size)
        if group_size >= 64 and fan_in > 64:
            constants["num_warps"] = 8
        _backward_dw[(programs,)](
            columns, index, dz[begin : begin + MAX_BATCH], out, n_labels, len(part),
            columns.shape[1], index.shape[0], FEATURES_FIRST=fan_in <= 64, **constants,
        )  # fmt: skip
        if total is not None:
            total += out
    return out if total is None else total.to(dtype)


def backward_dx(
    dz: Tensor,
    weight: Tensor,
    index: Tensor,
    n_features: int,
    *,
    group_size: int,
    block_size: int = 1,
    unique: bool = False,
    deterministic: bool = False,
) -> Tensor:
    """fp32 [B, H]: dX for dz [B, L], contiguous.

    `unique` and `deterministic` as in `route.choose_route`.
    """
    batch, n_labels = dz.shape
    fan_in = weight.shape[1]
    route = choose_route(
        batch, n_features, fan_in, group_size, weight.element_size(), unique=unique,
        deterministic=deterministic, fused=False,
    )  # fmt: skip
    if route is Route.DENSIFY:
        dz = dz.to(dot_weight(weight))
        dx = DenseDx(index, fan_in, n_features, batch, group_size, block_size, dz.dtype)
        dx.add(dz, weight.to(dz.dtype), by_row=True)
        total = dx.total().t()
        # a copy of E4M3 weights in bf16 is not yet multiplied by their scale
        return total.mul_(FP8_SCALE) if weight.dtype == FP8 else total
    parts = []
    for begin in range(0, batch, MAX_BATCH):
        part = dz[begin : begin + MAX_BATCH]
        tile, tiles = batch_tiles(len(part))
        width = tile * tiles
        out = torch.zeros(COPIES, n_features, width, dtype=torch.float32, device=dz.device)
        programs = min(num_sms(dz.device) * 4, index.shape[0])
        _backward_dx[(programs,)](
            storage_view(weight), index, part, out, n_labels, len(part), width, index.shape[0],
            n_features * width, G=group_size, F=fan_in, BLOCK_SIZE=block_size, BLOCK_B=tile, NUM_TILES=tiles,
            DOT_DTYPE=dot_dtype(weight.dtype), PRECISION="ieee", NUM_COPIES=COPIES, num_warps=4,
            NUM_STAGES=2 if fan_in * group_size <= 128 * 64 and weight.element_size() <= 2 else 1,
        )  # fmt: skip
        parts.append(out.sum(0)[:, : len(part)].t())
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _prepare(
    features: Tensor,
    dtype: torch.dtype,
    fan_in: int,
    index: Tensor,
    group_size: int,
    block_size: int,
) -> tuple[dict, int, Tensor]:
    """Constants of a launch for weights of `dtype`, its number of programs, and the features [H, Bp]."""
    wide = dtype == torch.float32
    largest = 128 if fan_in > 64 and group_size < 64 and not wide else 64
    tile, tiles = batch_tiles(features.shape[0], 32 if wide else largest)
    columns = padded_columns(features, dtype, tile)
    constants = {
        "G": group_size,
        "F": fan_in,
        "BLOCK_SIZE": block_size,
        "BLOCK_B": tile,
        "NUM_TILES": tiles,
        "DOT_DTYPE": dot_dtype(dtype),
        "PRECISION": "ieee",
        # the tiles that are prefetched must fit into shared memory
        "NUM_STAGES": 2 if fan_in * columns.shape[1] * columns.element_size() <= 1 << 16 else 1,
        "num_warps": 4,
    }
    return constants, min(num_sms(features.device) * 8, index.shape[0]), columns
