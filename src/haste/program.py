"""Encoder and output layer as one torch.export program: token ids in, logits of all labels out."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from haste.encoders.as_given import AsGiven
from haste.encoders.bag import BagEncoder
from haste.encoders.transformer import TransformerEncoder
from haste.errors import ConfigError
from haste.kernels.rounding import dequantize
from haste.kernels.traced import exported
from haste.layers.base import OutputLayer
from haste.layers.dense import Dense
from haste.layers.head_tail import HeadTail
from haste.layers.sparse import Sparse
from haste.layers.wrappers import WrappedLayer
from haste.model import Model


class Scores(nn.Module):
    """Logits [B, L] by label id, from ids int64 [B, T] of the tokenizer, padded, and their mask [B, T]; or
    from features [B, D], where the encoder takes these. Operators of torch alone."""

    row_of_label: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.projection = model.projection
        self.layer = model.layer
        self.register_buffer("row_of_label", torch.from_numpy(model.order.row_of_label).long())

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class."""
        features = self.projection(_features(self.encoder, ids, mask))
        return _logits(self.layer, features.float()).index_select(1, self.row_of_label)


def write_program(model: Model, path: Path) -> None:
    """Write a program for any batch and length; `torch.export.load` reads it without haste.

    Raises ConfigError for an encoder that cannot be exported.
    """
    batch, length = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    if isinstance(model.encoder, AsGiven):
        arguments: tuple[Tensor, ...] = (torch.zeros(2, model.encoder.feature_size),)
        shapes = {"ids": {0: batch}}
    else:
        arguments = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.bool))
        shapes = {"ids": {0: batch, 1: length}, "mask": {0: batch, 1: length}}
    scores = Scores(model).eval().cpu()
    with torch.no_grad():
        program = torch.export.export(scores, arguments, dynamic_shapes=shapes)
    torch.export.save(program, path)


def _features(encoder: nn.Module, ids: Tensor, mask: Tensor | None) -> Tensor:
    if isinstance(encoder, AsGiven):
        return ids * encoder.scale
    # token ids come with one
    assert mask is not None
    if isinstance(encoder, TransformerEncoder):
        return encoder.padded_features(ids, mask)
    if not isinstance(encoder, BagEncoder):
        raise ConfigError(f"{type(encoder).__name__}: this encoder cannot be exported.")
    compact = encoder.lookup[ids].long()
    share = (mask & (compact >= 0)).float()[:, :, None]
    words = F.embedding(compact.clamp(min=0), encoder.embedding.weight)
    return encoder.residual((words * share).sum(1) / share.sum(1).clamp(min=1))


def _logits(layer: OutputLayer, features: Tensor) -> Tensor:
    if isinstance(layer, WrappedLayer):
        return _logits(layer.layer, features)
    if isinstance(layer, HeadTail):
        head = _logits(layer.head, features[:, layer.head_features])
        return torch.cat([head, _logits(layer.tail, features[:, layer.tail_features])], 1)
    if not isinstance(layer, Dense | Sparse):
        raise ConfigError(f"{type(layer).__name__}: this layer cannot be exported.")
    weight, bias = dequantize(layer.weight), layer.bias.float()
    if isinstance(layer, Dense):
        return F.linear(features, weight, bias)
    return exported(features, weight, layer.index, bias, layer.group_size)
