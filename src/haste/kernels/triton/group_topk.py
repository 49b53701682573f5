"""The best labels of each document from a group-shared layer in Triton, without writing [B, L].

A first pass over the weights keeps the best logit of each block of groups. The k best labels of a document lie
in the k blocks whose best logits are highest, and only those are multiplied again and sorted.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels.rounding import storage_view
from haste.kernels.triton.common import (
    batch_tiles,
    dequantize,
    dot_dtype,
    dot_weight,
    load_index,
    num_sms,
    padded_columns,
    to_dot_dtype,
)
from haste.kernels.triton.group_step import check_sizes

LABELS_PER_BLOCK = 128
"""more make the first pass write less and the second read more"""
MAX_BATCH = 256
"""documents per launch: the tiles of a batch are unrolled"""


@triton.jit
def _block_maxima(
    x_ptr, w_ptr, index_ptr, bias_ptr, out_ptr, n_labels, width, n_groups, n_blocks,
    G: tl.constexpr, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    GROUPS: tl.constexpr, DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out fp32 [n_blocks, Bp]: the highest logit of each block of GROUPS groups."""
    per = tl.cdiv(n_blocks, tl.num_programs(0))
    first = tl.program_id(0) * per
    f = tl.arange(0, F)
    for block in range(first, tl.minimum(first + per, n_blocks)):
        for tile in tl.static_range(NUM_TILES):
            b = tile * BLOCK_B + tl.arange(0, BLOCK_B)
            best = tl.full([BLOCK_B], float("-inf"), tl.float32)
            for k in range(block * GROUPS, tl.minimum((block + 1) * GROUPS, n_groups)):
                idx = load_index(index_ptr, k, F, BLOCK_SIZE)
                rows = (k * G + tl.arange(0, G)).to(tl.int64)
                inside = rows < n_labels
                stored = tl.load(
                    w_ptr + rows[:, None] * F + f[None, :], mask=inside[:, None], other=0
                )
                bias = tl.load(bias_ptr + rows, mask=inside, other=0.0).to(tl.float32)
                x = tl.load(x_ptr + idx[:, None] * width + b[None, :]).to(DOT_DTYPE)
                z = tl.dot(to_dot_dtype(stored, DOT_DTYPE), x, input_precision=PRECISION)
                z = tl.where(inside[:, None], z + bias[:, None], float("-inf"))
                best = tl.maximum(best, tl.max(z, 0))
            row = block + tl.zeros([BLOCK_B], tl.int64)
            tl.store(out_ptr + row * width + b, best)


@triton.jit
def _block_logits(
    x_ptr, w_ptr, index_ptr, bias_ptr, block_ptr, out_ptr, n_labels, width, n_groups, n_chosen,
    G: tl.constexpr, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """out fp32 [B, n_chosen, GROUPS * G]: the logits of one document for one of its blocks a program."""
    doc = tl.program_id(0)
    pair = doc.to(tl.int64) * n_chosen + tl.program_id(1)
    block = tl.load(block_ptr + pair)
    f = tl.arange(0, F)
    for i in range(GROUPS):
        k = (block * GROUPS + i).to(tl.int64)
        rows = k * G + tl.arange(0, G)
        inside = (rows < n_labels) & (k < n_groups)
        idx = load_index(index_ptr, tl.minimum(k, n_groups - 1), F, BLOCK_SIZE)
        x = tl.load(x_ptr + idx.to(tl.int64) * width + doc).to(tl.float32)
        stored = tl.load(w_ptr + rows[:, None] * F + f[None, :], mask=inside[:, None], other=0)
        z = tl.sum(dequantize(stored) * x[None, :], 1)
        z += tl.load(bias_ptr + rows, mask=inside, other=0.0).to(tl.float32)
        z = tl.where(inside, z, float("-inf"))
        tl.store(out_ptr + pair * (GROUPS * G) + i * G + tl.arange(0, G), z)


def topk(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor,
    k: int,
    *,
    group_size: int,
    block_size: int = 1,
) -> tuple[Tensor, Tensor]:
    """Scores fp32 [B, k] and rows int64 [B, k] of the k largest logits, best first.

    Arguments as in `group_linear.forward`; k is at most L. Exact up to the rounding of an fp32 sum: two labels
    whose logits differ by less may change places.
    """
    check_sizes(weight, index, group_size)
    groups = max(1, LABELS_PER_BLOCK // group_size)
    n_blocks = triton.cdiv(len(index), groups)
    parts = [
        _topk(part, weight, index, bias, k, group_size, block_size, groups, n_blocks)
        for part in features.split(MAX_BATCH)
    ]
    scores, rows = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(rows)


def _topk(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor,
    k: int,
    group_size: int,
    block_size: int,
    groups: int,
    n_blocks: int,
) -> tuple[Tensor, Tensor]:
    n_labels, fan_in = weight.shape
    batch, device = len(features), features.device
    wide = weight.dtype == torch.float32
    tile, tiles = batch_tiles(batch, 32 if wide else 64)
    columns = padded_columns(features, dot_weight(weight), tile)
    width = columns.shape[1]
    shared = (columns, storage_view(weight), index, bias)
    sizes = {"G": group_size, "F": fan_in, "BLOCK_SIZE": block_size, "GROUPS": groups}
    maxima = torch.empty(n_blocks, width, dtype=torch.float32, device=device)
    _block_maxima[(min(num_sms(device) * 8, n_blocks),)](
        *shared, maxima, n_labels, width, len(index), n_blocks, BLOCK_B=tile, NUM_TILES=tiles,
        DOT_DTYPE=dot_dtype(weight.dtype), PRECISION="ieee", num_warps=4, **sizes,
    )  # fmt: skip
    chosen = maxima[:, :batch].t().topk(min(k, n_blocks), sorted=False).indices.int()
    logits = maxima.new_empty(batch, chosen.shape[1], groups * group_size)
    _block_logits[(batch, chosen.shape[1])](
        *shared, chosen, logits, n_labels, width, len(index), chosen.shape[1], num_warps=4, **sizes
    )
    per_block = groups * group_size
    scores, position = logits.flatten(1).topk(k)
    return scores, chosen.gather(1, position // per_block).long() * per_block + position % per_block
