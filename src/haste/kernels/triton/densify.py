"""Gradients and weights of layers that read F of H features, through products as if they read all.

A group's weights are densified, to [labels, H], tile by tile, in registers, through the inverse of its
index: position of each feature among the F, or none. A product over H does H / F times the arithmetic
that is needed, on tensor cores, and sums over labels without atomics. No group may name a feature twice.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels.rounding import storage_view
from haste.kernels.triton.common import cast, dequantize, dot_dtype, load_index, num_sms


@triton.jit
def _invert(
    index_ptr, inverse_ptr, n_features, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, PADDED_H: tl.constexpr,
    NONE: tl.constexpr,
):  # fmt: skip
    """inverse[k, h] = position of feature h in group k = program_id, or NONE."""
    k = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, PADDED_H)
    row_ptr = inverse_ptr + k * n_features
    none = tl.full([PADDED_H], NONE, tl.int32).to(inverse_ptr.dtype.element_ty)
    tl.store(row_ptr + c, none, mask=c < n_features)
    tl.debug_barrier()
    idx = load_index(index_ptr, k, F, BLOCK_SIZE)
    tl.store(row_ptr + idx, tl.arange(0, F).to(inverse_ptr.dtype.element_ty))


@triton.jit
def _dense_dx_kernel(
    w_ptr, inverse_ptr, dz_ptr, dx_ptr, n_labels, n_features, width, stride_dzl, stride_dzb, split,
    G: tl.constexpr, F: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_L: tl.constexpr,
    NONE: tl.constexpr, BY_ROW: tl.constexpr, DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dx[s, c, b] += sum over the labels of split s of densified w [l, c] times dz[l, b].

    While a tile is multiplied, the next one is gathered and the indices of the one after it are loaded:
    gathers of two bytes cannot be copied asynchronously. Features come first in the tiles of weights, so
    that neighbouring threads read from the same row.
    """
    c = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    begin = tl.program_id(2).to(tl.int64) * split
    end = tl.minimum(begin + split, n_labels)
    l = tl.arange(0, BLOCK_L)  # noqa: E741
    place = inverse_ptr + (l // G)[None, :] * n_features + c[:, None]
    known = (c < n_features)[:, None]
    acc = tl.zeros([BLOCK_H, BLOCK_B], tl.float32)
    j = tl.load(
        place + begin // G * n_features, mask=known & (begin + l < end)[None, :], other=NONE
    ).to(tl.int32)
    tile = tl.load(w_ptr + begin * F + (l * F)[None, :] + j, mask=j < F, other=0.0)
    after = begin + BLOCK_L
    j = tl.load(
        place + after // G * n_features, mask=known & (after + l < end)[None, :], other=NONE
    ).to(tl.int32)
    for start in tl.range(begin, end, BLOCK_L, num_stages=2):
        if BY_ROW:
            offsets = b.to(tl.int64)[:, None] * stride_dzb + (start + l)[None, :]
            mask = (start + l < end)[None, :] & (b < width)[:, None]
            d = tl.trans(tl.load(dz_ptr + offsets, mask=mask, other=0.0))
        else:
            offsets = (start + l)[:, None] * stride_dzl + b[None, :]
            mask = (start + l < end)[:, None] & (b < width)[None, :]
            d = tl.load(dz_ptr + offsets, mask=mask, other=0.0)
        after = start + BLOCK_L
        next_tile = tl.load(w_ptr + after * F + (l * F)[None, :] + j, mask=j < F, other=0.0)
        after += BLOCK_L
        j = tl.load(
            place + after // G * n_features, mask=known & (after + l < end)[None, :], other=NONE
        ).to(tl.int32)
        acc = tl.dot(tile.to(DOT_DTYPE), d.to(DOT_DTYPE), acc, input_precision=PRECISION)
        tile = next_tile
    offsets = (tl.program_id(2) * n_features + c)[:, None] * width + b[None, :]
    mask = known & (b < width)[None, :]
    tl.store(dx_ptr + offsets, tl.load(dx_ptr + offsets, mask=mask, other=0.0) + acc, mask=mask)


@triton.jit
def _densify_kernel(
    w_ptr, index_ptr, out_ptr, n_labels, n_features,
    F: tl.constexpr, BLOCK_L: tl.constexpr, PADDED_H: tl.constexpr, REPEATED: tl.constexpr,
):  # fmt: skip
    """out[l, index[l, j]] = w[l, j], all else 0, for BLOCK_L labels; sums where an index repeats."""
    r = tl.program_id(0).to(tl.int64) * BLOCK_L + tl.arange(0, BLOCK_L)
    c = tl.arange(0, PADDED_H)
    inside = r < n_labels
    zero = tl.zeros([BLOCK_L, PADDED_H], out_ptr.dtype.element_ty)
    whole = inside[:, None] & (c < n_features)[None, :]
    tl.store(out_ptr + r[:, None] * n_features + c[None, :], zero, mask=whole)
    f = tl.arange(0, F)
    offsets = r[None, :] * F + f[:, None]
    idx = tl.load(index_ptr + offsets, mask=inside[None, :], other=0)
    value = dequantize(tl.load(w_ptr + offsets, mask=inside[None, :], other=0))
    target = out_ptr + r[None, :] * n_features + idx
    tl.debug_barrier()
    if REPEATED:
        tl.atomic_add(target, value, mask=inside[None, :], sem="relaxed")
    else:
        tl.store(target, cast(value, out_ptr.dtype.element_ty), mask=inside[None, :])


@triton.jit
def _gather_columns_kernel(
    dense_ptr, index_ptr, out_ptr, n_features, total, F: tl.constexpr, BLOCK: tl.constexpr
):
    """out[l, j] = dense[l, index[l, j]], BLOCK elements per program."""
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    idx = tl.load(index_ptr + p, mask=p < total, other=0)
    value = tl.load(dense_ptr + p // F * n_features + idx, mask=p < total, other=0.0)
    tl.store(out_ptr + p, cast(value, out_ptr.dtype.element_ty), mask=p < total)


class DenseDx:
    """dX fp32 [H, B], summed over chunks of labels: their weights, densified to H features, times dz.

    The order of the sums is fixed. index int32 [K, F / block_size] as in `group_step.group_step`, no feature
    twice in a group; `width`: B; `dtype`: of weights and dz.
    """

    def __init__(
        self,
        index: Tensor,
        fan_in: int,
        n_features: int,
        width: int,
        group_size: int,
        block_size: int,
        dtype: torch.dtype,
    ) -> None:
        self.fan_in, self.n_features, self.width = fan_in, n_features, width
        self.group_size = group_size
        byte = fan_in <= 128
        self.none = 255 if byte else 0x7FFF
        self.inverse = torch.empty(
            len(index), n_features, dtype=torch.uint8 if byte else torch.int16, device=index.device
        )
        _invert[(len(index),)](
            index, self.inverse, n_features, F=fan_in, BLOCK_SIZE=block_size,
            PADDED_H=triton.next_power_of_2(n_features), NONE=self.none, num_warps=2,
        )  # fmt: skip
        wide = dtype == torch.float32
        self.batch_tile = max(16, min(64 if wide else 256, triton.next_power_of_2(width)))
        self.feature_tile = 64 if wide else 128
        self.label_tile = max(group_size, 32 if wide or self.batch_tile == 128 else 64)
        self.tiles = (
            triton.cdiv(n_features, self.feature_tile),
            triton.cdiv(width, self.batch_tile),
        )
        blocks_per_sm = 1 if self.batch_tile == 256 else 2
        splits = max(1, num_sms(index.device) * blocks_per_sm // (self.tiles[0] * self.tiles[1]))
        self.out = torch.zeros(splits, n_features, width, dtype=torch.float32, device=index.device)

    def add(
        self, dz: Tensor, weight: Tensor, first_group: int = 0, *, by_row: bool = False
    ) -> None:
        """Add labels from group `first_group` on: dz [T, B], or [B, T] with `by_row`; weight [T, F]."""
        count = len(weight)
        split = triton.cdiv(triton.cdiv(count, self.label_tile), len(self.out)) * self.label_tile
        _dense_dx_kernel[(*self.tiles, triton.cdiv(count, split))](
            weight, self.inverse[first_group:], dz, self.out, count, self.n_features, self.width,
            0 if by_row else dz.stride(0), dz.stride(0) if by_row else 0, split,
            G=self.group_size, F=self.fan_in, BLOCK_B=self.batch_tile, BLOCK_H=self.feature_tile,
            BLOCK_L=self.label_tile, NONE=self.none, BY_ROW=by_row, DOT_DTYPE=dot_dtype(weight.dtype),
            PRECISION="ieee", num_warps=8 if self.batch_tile == 256 else 4,
        )  # fmt: skip

    def total(self) -> Tensor:
        """The sum."""
        return self.out.sum(0)


def densify(
    weight: Tensor, index: Tensor, n_features: int, *, unique: bool, dtype: torch.dtype
) -> Tensor:
    """[L, H]: weight [L, F] at the features that index int32 [L, F] names for each label.

    Where an index repeats, its weights add up; `unique` promises that none does.
    """
    n_labels, fan_in = weight.shape
    # not every GPU has atomic sums in half precision
    out_dtype = dtype if unique else torch.float32
    out = torch.empty(n_labels, n_features, dtype=out_dtype, device=weight.device)
    rows = 2
    _densify_kernel[(triton.cdiv(n_labels, rows),)](
        storage_view(weight), index, out, n_labels, n_features,
        F=fan_in, BLOCK_L=rows, PADDED_H=triton.next_power_of_2(n_features), REPEATED=not unique, num_warps=4,
    )  # fmt: skip
    return out.to(dtype)


def gather_columns(dense: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """[L, F] in `dtype`: the columns of dense [L, H] that index int32 [L, F] names for each label."""
    out = torch.empty(index.shape, dtype=dtype, device=dense.device)
    block = 1024
    _gather_columns_kernel[(triton.cdiv(index.numel(), block),)](
        dense, index, out, dense.shape[1], index.numel(), F=index.shape[1], BLOCK=block, num_warps=8
    )
    return out
