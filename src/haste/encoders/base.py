"""What every encoder is: documents as flat tokens in, features [B, H] out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn

SPARE = 8
"""padding of a packed batch at most, in documents of the greatest length"""


class Encoder(nn.Module, ABC):
    """Features h = f(x) in R^H of documents whose tokens lie one after the other."""

    feature_size: int
    capturable = False
    """whether a CUDA graph can hold its steps: the shapes of all it computes follow from those of its arguments
    and `longest`, and nothing comes from the host"""
    packed = False
    """whether it is fastest on documents end to end; ids after the last, at most SPARE times `longest`, are
    padding"""

    @abstractmethod
    def forward(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        longest: int | None = None,
    ) -> Tensor:
        """[B, H] from token ids int [T] of the tokenizer and offsets int64 [B + 1].

        `longest`: tokens of the longest document; without it, who needs it reads it from `offsets`,
        which synchronizes. With `weights` float32 [T] the ids are columns of sparse features, and
        these their values; an encoder that reads nothing but text raises ConfigError.
        """

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._any_tensor().device

    @property
    def dtype(self) -> torch.dtype:
        """Of its features."""
        return self._any_tensor().dtype

    def _any_tensor(self) -> Tensor:
        tensors = chain(self.parameters(), self.buffers())
        return next(value for value in tensors if value.is_floating_point())

    def sparse_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters whose gradient is a sparse tensor: they need an optimiser of their own."""
        return ()

    def written_gradients(self) -> Iterable[nn.Parameter]:
        """Parameters whose `grad` a backward pass overwrites by itself, which autograd knows nothing of."""
        return ()
