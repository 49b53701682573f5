"""Attention of short documents, as encoders of titles, glosses and search queries need it.

With about 30 tokens per document all scores of a head fit in registers, so a pass reads its inputs once
and writes its result, and the backward pass computes the scores again. Kernels for long documents spend
most of their time on tiles that are padding for short ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels.checks import FLOATS, check_one_of, check_share

LONGEST = 64
"""tokens per document"""
SIZES = (16, 32, 64, 128)
"""dimensions D of a head"""


def can_attend(query: Tensor) -> bool:
    """Whether `short_attention` takes queries [B, heads, T, D]: on a GPU, T up to LONGEST, D in SIZES."""
    return query.is_cuda and query.shape[2] <= LONGEST and query.shape[3] in SIZES


def short_attention(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, p: float = 0.0, scale: float = 1.0
) -> Tensor:
    """Every token attends to all tokens of its document: softmax(scale query keyᵀ) value.

    With autograd for query, key and value; no atomics, so results are deterministic. Can be captured in a
    CUDA graph: the seed of dropout is drawn on the device, from the device's generator.

    Args:
        query, key, value: [B, heads, T, D] in bf16, fp16 or fp32, of any strides but 1 for D; T at most
            LONGEST, D one of SIZES.
        keys: bool [B, T], which tokens are attended to; a document without any gets zeros.
        p: share of the weights, in [0, 1), that dropout zeroes after the softmax, in steps of 2⁻¹⁶.
        scale: of the scores, usually D^-1/2.

    Returns: [B, heads, T, D], in memory [B, T, heads, D].

    Raises KernelError for other shapes, dtypes and shares.
    """
    documents, _, tokens, size = query.shape
    if tokens > LONGEST or size not in SIZES:
        raise KernelError(
            f"short_attention: documents of {tokens} tokens and heads of {size}; the kernel takes at most "
            f"{LONGEST} tokens and heads of {', '.join(map(str, SIZES))}. Use torch's attention."
        )
    if not (query.shape == key.shape == value.shape and keys.shape == (documents, tokens)):
        shapes = ", ".join(str(list(tensor.shape)) for tensor in (query, key, value, keys))
        raise KernelError(
            f"short_attention: query, key, value and keys are {shapes}; give three of [B, heads, T, D] "
            "and one of [B, T]."
        )
    check_share("p", p)
    check_one_of("query: dtype", query.dtype, FLOATS)
    for name, other in (("key", key), ("value", value)):
        check_one_of(f"{name}: dtype", other.dtype, (query.dtype,))
    return _Attention.apply(query, key, value, keys, p, scale)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, keys, p, scale) -> Tensor:
        from haste.kernels.triton.attention import attend

        query, key, value = (_contiguous_rows(tensor) for tensor in (query, key, value))
        keys = keys.contiguous().view(torch.uint8)
        seed = torch.randint(2**62, (1,), device=query.device) if p else None
        ctx.save_for_backward(query, key, value, keys, seed)
        ctx.settings = p, scale
        return attend(query, key, value, keys, p, seed, scale)

    @staticmethod
    def backward(ctx, gradient) -> tuple[Tensor | None, ...]:
        from haste.kernels.triton.attention import attend_backward

        query, key, value, keys, seed = ctx.saved_tensors
        p, scale = ctx.settings
        gradients = attend_backward(query, key, value, keys, gradient, p, seed, scale)
        return *gradients, None, None, None


def _contiguous_rows(values: Tensor) -> Tensor:
    return values if values.stride(-1) == 1 else values.contiguous()
