"""Attention over short documents in Triton: one program holds all scores of a head of a document."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels.triton.common import (
    PHILOX_ROUNDS,
    cast,
    dot_dtype,
    load_scalar,
    random_halves,
)

SMALLEST = 32
"""tokens of a tile. With 16, in one warp, dropout in bf16 took wrong weights on an H100 (Triton 3.6),
while fp32, no dropout, and the interpreter were right."""


@triton.jit
def _pointers(
    x_ptr, document, head, stride_b, stride_h, stride_t, T: tl.constexpr, D: tl.constexpr
):
    """Pointers [T, D] to a head of a document."""
    tokens = tl.arange(0, T)[:, None]
    return x_ptr + document * stride_b + head * stride_h + tokens * stride_t + tl.arange(0, D)


@triton.jit
def _tile(
    x_ptr, document, head, stride_b, stride_h, stride_t, inside,
    T: tl.constexpr, D: tl.constexpr, DOT_DTYPE: tl.constexpr,
):  # fmt: skip
    """[T, D] in DOT_DTYPE: a head of a document, zero after the last token."""
    pointers = _pointers(x_ptr, document, head, stride_b, stride_h, stride_t, T, D)
    return tl.load(pointers, mask=inside, other=0.0).to(DOT_DTYPE)


@triton.jit
def _weights(
    q, k, keys_ptr, document, head, heads, length, scale, seed, threshold, boost,
    T: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """Attention weights fp32 [T, T], 0 for keys that are masked, and the factors of dropout [T, T]."""
    tokens = tl.arange(0, T)
    seen = tl.load(keys_ptr + document * length + tokens, mask=tokens < length, other=0) != 0
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    scores = tl.where(seen[None, :], scores, -1e30)
    raised = tl.where(seen[None, :], tl.exp(scores - tl.max(scores, 1)[:, None]), 0.0)
    # a document without any token attends to nothing
    weights = raised / tl.maximum(tl.sum(raised, 1), 1e-30)[:, None]
    kept = weights * 0 + 1
    if DROPOUT:
        rows = (document * heads + head) * T + tokens
        noise = random_halves(load_scalar(seed), 0, rows, 0, T, T, ROUNDS) & 0xFFFF
        kept = tl.where(noise >= threshold, boost, 0.0)
    return weights, kept


@triton.jit(do_not_specialize=["threshold"])
def _attend(
    q_ptr, k_ptr, v_ptr, keys_ptr, out_ptr, seed, heads, length, scale, threshold, boost,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt, stride_vb, stride_vh, stride_vt,
    stride_ob, stride_oh, stride_ot,
    T: tl.constexpr, D: tl.constexpr, DROPOUT: tl.constexpr, DOT_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    document, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    inside = tl.arange(0, T)[:, None] < length
    query = _tile(q_ptr, document, head, stride_qb, stride_qh, stride_qt, inside, T, D, DOT_DTYPE)
    key = _tile(k_ptr, document, head, stride_kb, stride_kh, stride_kt, inside, T, D, DOT_DTYPE)
    value = _tile(v_ptr, document, head, stride_vb, stride_vh, stride_vt, inside, T, D, DOT_DTYPE)
    weights, kept = _weights(
        query, key, keys_ptr, document, head, heads, length, scale, seed, threshold,
        boost, T, DROPOUT, PRECISION, ROUNDS,
    )  # fmt: skip
    result = tl.dot((weights * kept).to(DOT_DTYPE), value, input_precision=PRECISION)
    pointers = _pointers(out_ptr, document, head, stride_ob, stride_oh, stride_ot, T, D)
    tl.store(pointers, cast(result, out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["threshold"])
def _attend_backward(
    q_ptr, k_ptr, v_ptr, keys_ptr, do_ptr, dq_ptr, dk_ptr, dv_ptr, seed, heads, length, scale, threshold, boost,
    stride_qb, stride_qh, stride_qt, stride_kb, stride_kh, stride_kt, stride_vb, stride_vh, stride_vt,
    stride_dob, stride_doh, stride_dot, stride_ob, stride_oh, stride_ot,
    T: tl.constexpr, D: tl.constexpr, DROPOUT: tl.constexpr, DOT_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    document, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    inside = tl.arange(0, T)[:, None] < length
    query = _tile(q_ptr, document, head, stride_qb, stride_qh, stride_qt, inside, T, D, DOT_DTYPE)
    key = _tile(k_ptr, document, head, stride_kb, stride_kh, stride_kt, inside, T, D, DOT_DTYPE)
    value = _tile(v_ptr, document, head, stride_vb, stride_vh, stride_vt, inside, T, D, DOT_DTYPE)
    d_out = _tile(
        do_ptr, document, head, stride_dob, stride_doh, stride_dot, inside, T, D, DOT_DTYPE
    )
    weights, kept = _weights(
        query, key, keys_ptr, document, head, heads, length, scale, seed, threshold, boost,
        T, DROPOUT, PRECISION, ROUNDS,
    )  # fmt: skip
    dv = tl.dot(tl.trans((weights * kept).to(DOT_DTYPE)), d_out, input_precision=PRECISION)
    pointers = _pointers(dv_ptr, document, head, stride_ob, stride_oh, stride_ot, T, D)
    tl.store(pointers, cast(dv, dv_ptr.dtype.element_ty), mask=inside)
    d_weights = tl.dot(d_out, tl.trans(value), input_precision=PRECISION) * kept
    d_scores = weights * (d_weights - tl.sum(weights * d_weights, 1)[:, None]) * scale
    d_scores = d_scores.to(DOT_DTYPE)
    dq = tl.dot(d_scores, key, input_precision=PRECISION)
    pointers = _pointers(dq_ptr, document, head, stride_ob, stride_oh, stride_ot, T, D)
    tl.store(pointers, cast(dq, dq_ptr.dtype.element_ty), mask=inside)
    dk = tl.dot(tl.trans(d_scores), query, input_precision=PRECISION)
    pointers = _pointers(dk_ptr, document, head, stride_ob, stride_oh, stride_ot, T, D)
    tl.store(pointers, cast(dk, dk_ptr.dtype.element_ty), mask=inside)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    p: float,
    seed: Tensor | None,
    scale: float,
) -> Tensor:
    """See `haste.kernels.attention.short_attention`; the result is [B, T, heads, D] in memory."""
    out = _like(query)
    documents, heads, length, _ = query.shape
    _attend[(documents * heads,)](
        query, key, value, keys, out, seed, heads, length, scale, *_dropped(p),
        *_strides(query), *_strides(key), *_strides(value), *_strides(out),
        **_constants(query, p),
    )  # fmt: skip
    return out


def attend_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    gradient: Tensor,
    p: float,
    seed: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value [B, heads, T, D], which are [B, T, heads, D] in memory."""
    gradient = gradient if gradient.stride(-1) == 1 else gradient.contiguous()
    gradients = _like(query), _like(query), _like(query)
    documents, heads, length, _ = query.shape
    _attend_backward[(documents * heads,)](
        query, key, value, keys, gradient, *gradients, seed, heads, length, scale, *_dropped(p),
        *_strides(query), *_strides(key), *_strides(value), *_strides(gradient), *_strides(gradients[0]),
        **_constants(query, p),
    )  # fmt: skip
    return gradients


def _like(query: Tensor) -> Tensor:
    # heads of a token lie together, so what follows reads [B, T, heads x D] without a copy
    documents, heads, length, size = query.shape
    return query.new_empty(documents, length, heads, size).transpose(1, 2)


def _strides(values: Tensor) -> tuple[int, ...]:
    return values.stride()[:3]


def _dropped(p: float) -> tuple[int, float]:
    """The bound below which 16 random bits drop a weight, and the factor of the other weights."""
    return round(p * 2**16), 1 / (1 - p)


def _constants(query: Tensor, p: float) -> dict[str, object]:
    tokens = max(SMALLEST, triton.next_power_of_2(query.shape[2]))
    wide = query.dtype == torch.float32
    return {
        "T": tokens,
        "D": query.shape[3],
        "DROPOUT": p > 0,
        "DOT_DTYPE": dot_dtype(query.dtype),
        "PRECISION": "ieee" if wide else "tf32",
        "ROUNDS": PHILOX_ROUNDS,
        # so that [T, T] fp32 values fit in registers
        "num_warps": tokens // 16,
    }
