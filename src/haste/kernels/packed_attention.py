"""Attention of documents that lie end to end, without padding, and its gradient.

On a GPU by a kernel of our own where documents are short, else by torch's flash attention, which
`torch.nn.attention.varlen` is made of; that has no dropout, so it is called here as scaled dot product
attention calls it. On a CPU by softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from haste.errors import KernelError
from haste.kernels.residual import Dropout

LONGEST = 64
"""tokens of a document in the kernel for short ones, at most"""
SIZES = (16, 32, 64, 128)
"""dimensions D of a head in that kernel"""
LARGEST, MULTIPLE = 256, 8
"""dimensions of a head in flash attention: at most, and a multiple of"""
CAPABILITY = (8, 0)
"""of a GPU that flash attention runs on, at least"""


@dataclass(frozen=True)
class Documents:
    """Where documents begin and end."""

    bounds: Tensor
    """int32 [N + 1], from 0 to T"""
    longest: int
    """tokens of a document, at most"""

    def __len__(self) -> int:
        """N."""
        return len(self.bounds) - 1


@dataclass(frozen=True)
class Attended:
    """What `attend` found and `attend_backward` reads."""

    out: Tensor
    """[T, heads, D]"""
    others: tuple[Tensor, ...] = ()
    """of flash attention: logarithms of sums, and the state of the generator that dropout began with"""


def can_attend(size: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `attend` takes heads of `size` and documents of any length in `dtype` on `device`."""
    if device.type == "cpu":
        return True
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and size <= LARGEST
        and size % MULTIPLE == 0
        and torch.cuda.get_device_capability(device) >= CAPABILITY
    )


def attend(
    qkv: Tensor, documents: Documents, dropout: Dropout, bias: Tensor | None = None
) -> Attended:
    """Every token attends to all tokens of its document: softmax(q kᵀ / √D + bias) v.

    `qkv` [T, 3, heads, D] of what `can_attend`. On a GPU it can be captured in a CUDA graph.
    Dropout of flash attention draws from the device's generator, all other from that of `dropout`.
    `bias` [heads, S, S], of relative positions: between places of documents of at most S tokens, which is
    `documents.longest`. On a GPU that is for short documents alone; others raise KernelError.
    """
    if not qkv.is_cuda:
        return Attended(_softmax(qkv, documents, dropout, bias))
    if _is_short(qkv, documents):
        from haste.kernels.triton import packed_attention

        return Attended(packed_attention.attend(qkv, documents, dropout, bias))
    if bias is not None:
        raise KernelError(
            f"attend: a bias, with documents of {documents.longest} tokens and heads of {qkv.shape[3]}; on a "
            f"GPU at most {LONGEST} tokens, and heads of {', '.join(map(str, SIZES))}."
        )
    bounds, longest = documents.bounds, documents.longest
    out, sums, state, unused, _ = torch.ops.aten._flash_attention_forward(
        *qkv.unbind(1), bounds, bounds, longest, longest, dropout.p, False, False
    )
    return Attended(out, (sums, state, unused))


def attend_backward(
    qkv: Tensor,
    documents: Documents,
    dropout: Dropout,
    attended: Attended,
    gradient: Tensor,
    bias: Tensor | None = None,
    d_bias: Tensor | None = None,
) -> Tensor:
    """[T, 3, heads, D], the gradient of qkv, from that of what `attend` gave, [T, heads, D].

    With a `bias` its gradient is added to `d_bias`, fp32 [heads, S, S].
    """
    if not qkv.is_cuda:
        with torch.enable_grad():
            leaf = qkv.detach().requires_grad_()
            leaves = [leaf] if bias is None else [leaf, bias.detach().requires_grad_()]
            out = _softmax(leaf, documents, dropout, *leaves[1:])
        d_qkv, *others = torch.autograd.grad(out, leaves, gradient)
        if others and d_bias is not None:
            d_bias += others[0]
        return d_qkv
    if _is_short(qkv, documents):
        from haste.kernels.triton import packed_attention

        return packed_attention.attend_backward(qkv, documents, dropout, gradient, bias, d_bias)
    bounds, longest = documents.bounds, documents.longest
    sums, state, unused = attended.others
    gradients = torch.ops.aten._flash_attention_backward(
        gradient, *qkv.unbind(1), attended.out, sums, bounds, bounds, longest, longest, dropout.p, False,
        state, unused,
    )  # fmt: skip
    return torch.stack(gradients, 1)


def _is_short(qkv: Tensor, documents: Documents) -> bool:
    return documents.longest <= LONGEST and qkv.shape[3] in SIZES


def _softmax(
    qkv: Tensor, documents: Documents, dropout: Dropout, bias: Tensor | None = None
) -> Tensor:
    begin, lengths = documents.bounds[:-1].long(), documents.bounds.diff()
    place = torch.arange(documents.longest, device=qkv.device)
    inside = place < lengths[:, None]
    # [3, N, heads, longest, D]
    query, key, value = qkv[(begin[:, None] + place).clamp(max=len(qkv) - 1)].permute(2, 0, 3, 1, 4)
    scores = (query @ key.transpose(2, 3)) * qkv.shape[3] ** -0.5
    if bias is not None:
        scores = scores + bias
    # finite, so that documents without tokens have no gradient that is not a number
    lowest = torch.finfo(scores.dtype).min
    weights = F.softmax(scores.masked_fill(~inside[:, None, None], lowest), 3)
    if dropout.p:
        weights = weights * dropout.factor(weights)
    return (weights @ value).transpose(1, 2)[inside]
