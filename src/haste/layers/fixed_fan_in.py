"""Standard fixed fan-in: one index set of F features for each label."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.data.batches import Positives
from haste.kernels import torch_backend
from haste.kernels.update import Sgd
from haste.layers.base import LayerOptions
from haste.layers.indexed import IndexedRows, State


class FixedFanIn(IndexedRows):
    """z_l = <w_l, h[I_l]> + b_l: weights and indices [L, F]."""

    def __init__(
        self,
        n_features: int,
        n_labels: int,
        fan_in: int,
        options: LayerOptions,
        random: torch.Generator,
    ) -> None:
        super().__init__(n_features, n_labels, fan_in, options, random, unit_size=1)

    def _fused_step(
        self, features: Tensor, state: State, positives: Positives, sgd: Sgd, seed: int, step: int
    ) -> tuple[Tensor, Tensor]:
        return torch_backend.fixed_fan_in_step(
            features.float(),
            *state,
            positives,
            sgd=sgd,
            random=self.random_of(seed, step),
            loss_dtype=self.options.loss_dtype,
        )

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer."""
        return torch_backend.fixed_fan_in_linear(
            features.float(),
            self.weight[rows].float(),
            self.index[rows],
            self.bias[rows].float(),
        )
