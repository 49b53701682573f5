"""The attention function that transformers' models are built with here."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from haste.kernels.attention import can_attend, short_attention

NAME = "haste"


def implementation(choice: str) -> str:
    """What a model is given as its `attn_implementation` for encoder.attention; transformers
    knows it from then on."""
    if choice == "torch":
        return "sdpa"
    AttentionInterface.register(NAME, attention)
    return NAME


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Torch's scaled dot product attention, which never holds a T x T matrix; our own kernel where
    documents are short and on a GPU, and the mask bool [B, 1, 1, T] says which tokens are there.

    Args:
        query, key, value: [B, heads, T, D].
        others: what transformers has for other implementations.

    Returns [B, T, heads, D], and no weights.
    """
    plain = key.shape == query.shape and others.get("position_bias") is None
    masks_tokens = attention_mask is not None and attention_mask.shape[1:3] == (1, 1)
    if attention_mask is None or not (plain and masks_tokens and can_attend(query)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    keys = attention_mask[:, 0, 0]
    return short_attention(query, key, value, keys, dropout, scale).transpose(1, 2), None
