"""Attention over short documents that lie end to end, in Triton: one program holds all scores of a head of
a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels.triton.common import PHILOX_ROUNDS, cast, dot_dtype
from haste.kernels.triton.residual import dropped, kept_factor

if TYPE_CHECKING:
    from haste.kernels.packed_attention import Documents
    from haste.kernels.residual import Dropout

SMALLEST = 32
"""tokens of a tile. With 16, in one warp, dropout in bf16 took wrong weights on an H100 (Triton 3.6),
while fp32, no dropout, and the interpreter were right."""


@triton.jit
def _place(bounds_ptr, heads, T: tl.constexpr, D: tl.constexpr):
    """Of the program's document and head: its number, what of [T, D] is inside, its tokens and columns."""
    document, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    begin = tl.load(bounds_ptr + document).to(tl.int64)
    length = tl.load(bounds_ptr + document + 1) - begin
    place = tl.arange(0, T)
    tokens = (begin + place)[:, None]
    return place < length, tokens, (head * D + tl.arange(0, D))[None, :]


@triton.jit
def _pairs(matrix, longest, T: tl.constexpr):
    """Of a matrix among those of shape [longest, longest], where its values lie, [T, T], and which there are."""
    place = tl.arange(0, T)
    offsets = (matrix.to(tl.int64) * longest + place[:, None]) * longest + place[None, :]
    return offsets, (place < longest)[:, None] & (place < longest)[None, :]


@triton.jit
def _weights(
    q, k, inside, scale, bias_ptr, heads, longest, seed, site, threshold, boost,
    T: tl.constexpr, BIASED: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    ROUNDS: tl.constexpr,
):  # fmt: skip
    """Attention weights fp32 [T, T] and the factors of dropout [T, T]."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    if BIASED:
        offsets, within = _pairs(tl.program_id(0) % heads, longest, T)
        scores += tl.load(bias_ptr + offsets, mask=within, other=0.0).to(tl.float32)
    scores = tl.where(inside[None, :], scores, -1e30)
    raised = tl.where(inside[None, :], tl.exp(scores - tl.max(scores, 1)[:, None]), 0.0)
    weights = raised / tl.maximum(tl.sum(raised, 1), 1e-30)[:, None]
    rows = tl.program_id(0).to(tl.int64) * T + tl.arange(0, T)
    kept = kept_factor(seed, site, rows, threshold, boost, DROPOUT, T, T, ROUNDS)
    return weights, kept


@triton.jit(do_not_specialize=["site", "threshold"])
def _attend_packed(
    qkv_ptr, bounds_ptr, bias_ptr, out_ptr, longest, seed, site, heads, scale, threshold, boost,
    T: tl.constexpr, D: tl.constexpr, BIASED: tl.constexpr, DROPOUT: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    inside, tokens, columns = _place(bounds_ptr, heads, T, D)
    width, mask = heads * D, inside[:, None]
    q_ptr = qkv_ptr + tokens * (3 * width) + columns
    q = tl.load(q_ptr, mask=mask, other=0.0).to(DOT_DTYPE)
    k = tl.load(q_ptr + width, mask=mask, other=0.0).to(DOT_DTYPE)
    v = tl.load(q_ptr + 2 * width, mask=mask, other=0.0).to(DOT_DTYPE)
    weights, kept = _weights(
        q, k, inside, scale, bias_ptr, heads, longest, seed, site, threshold, boost,
        T, BIASED, DROPOUT, PRECISION, ROUNDS,
    )  # fmt: skip
    out = tl.dot((weights * kept).to(DOT_DTYPE), v, input_precision=PRECISION)
    tl.store(out_ptr + tokens * width + columns, cast(out, out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["site", "threshold"])
def _attend_packed_backward(
    qkv_ptr, bounds_ptr, bias_ptr, do_ptr, dqkv_ptr, ds_ptr, longest, seed, site, heads, scale,
    threshold, boost,
    T: tl.constexpr, D: tl.constexpr, BIASED: tl.constexpr, DROPOUT: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    inside, tokens, columns = _place(bounds_ptr, heads, T, D)
    width, mask = heads * D, inside[:, None]
    q_ptr = qkv_ptr + tokens * (3 * width) + columns
    q = tl.load(q_ptr, mask=mask, other=0.0).to(DOT_DTYPE)
    k = tl.load(q_ptr + width, mask=mask, other=0.0).to(DOT_DTYPE)
    v = tl.load(q_ptr + 2 * width, mask=mask, other=0.0).to(DOT_DTYPE)
    d_out = tl.load(do_ptr + tokens * width + columns, mask=mask, other=0.0).to(DOT_DTYPE)
    weights, kept = _weights(
        q, k, inside, scale, bias_ptr, heads, longest, seed, site, threshold, boost,
        T, BIASED, DROPOUT, PRECISION, ROUNDS,
    )  # fmt: skip
    dq_ptr = dqkv_ptr + tokens * (3 * width) + columns
    dtype = dqkv_ptr.dtype.element_ty
    dv = tl.dot(tl.trans((weights * kept).to(DOT_DTYPE)), d_out, input_precision=PRECISION)
    tl.store(dq_ptr + 2 * width, cast(dv, dtype), mask=mask)
    d_weights = tl.dot(d_out, tl.trans(v), input_precision=PRECISION) * kept
    d_scores = weights * (d_weights - tl.sum(weights * d_weights, 1)[:, None])
    if BIASED:
        offsets, within = _pairs(tl.program_id(0), longest, T)
        tl.store(ds_ptr + offsets, tl.where(inside[:, None], d_scores, 0.0), mask=within)
    d_scores = (d_scores * scale).to(DOT_DTYPE)
    dq = tl.dot(d_scores, k, input_precision=PRECISION)
    tl.store(dq_ptr, cast(dq, dtype), mask=mask)
    dk = tl.dot(tl.trans(d_scores), q, input_precision=PRECISION)
    tl.store(dq_ptr + width, cast(dk, dtype), mask=mask)


def attend(
    qkv: Tensor, documents: Documents, dropout: Dropout, bias: Tensor | None = None
) -> Tensor:
    """[T, heads, D] from qkv [T, 3, heads, D]; see `haste.kernels.packed_attention`."""
    tokens, _, heads, size = qkv.shape
    out = qkv.new_empty(tokens, heads, size)
    _attend_packed[(len(documents) * heads,)](
        qkv, documents.bounds, bias, out, *_values(qkv, documents, dropout),
        **_constants(qkv, documents, dropout, bias),
    )  # fmt: skip
    return out


def attend_backward(
    qkv: Tensor,
    documents: Documents,
    dropout: Dropout,
    gradient: Tensor,
    bias: Tensor | None = None,
    d_bias: Tensor | None = None,
) -> Tensor:
    """[T, 3, heads, D], the gradient of qkv, from that of what `attend` gave; that of a bias is added to `d_bias`."""
    out = torch.empty_like(qkv)
    shape = len(documents), qkv.shape[2], documents.longest, documents.longest
    # of every document, for a sum in a fixed order
    d_scores = None if bias is None else qkv.new_empty(shape, dtype=torch.float32)
    _attend_packed_backward[(len(documents) * qkv.shape[2],)](
        qkv, documents.bounds, bias, gradient, out, d_scores, *_values(qkv, documents, dropout),
        **_constants(qkv, documents, dropout, bias),
    )  # fmt: skip
    if d_scores is not None and d_bias is not None:
        d_bias += d_scores.sum(0)
    return out


def _values(qkv: Tensor, documents: Documents, dropout: Dropout) -> tuple[object, ...]:
    """Arguments of a kernel from `longest` on."""
    _, _, heads, size = qkv.shape
    return documents.longest, dropout.seed, dropout.site, heads, size**-0.5, *dropped(dropout.p)


def _constants(
    qkv: Tensor, documents: Documents, dropout: Dropout, bias: Tensor | None
) -> dict[str, object]:
    tokens = max(SMALLEST, triton.next_power_of_2(documents.longest))
    return {
        "T": tokens,
        "D": qkv.shape[3],
        "BIASED": bias is not None,
        "DROPOUT": dropout.p > 0,
        "DOT_DTYPE": dot_dtype(qkv.dtype),
        "PRECISION": "ieee" if qkv.dtype == torch.float32 else "tf32",
        "ROUNDS": PHILOX_ROUNDS,
        # so that [T, T] fp32 values fit in registers
        "num_warps": tokens // 16,
    }
