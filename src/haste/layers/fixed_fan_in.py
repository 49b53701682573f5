"""Standard fixed fan-in: one index set of F features for each label."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.kernels import fixed_fan_in_fused_step, torch_backend
from haste.kernels.rounding import widen
from haste.kernels.state import Positives
from haste.layers.base import LayerOptions, StepResult
from haste.layers.indexed import IndexedRows


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

    def step(
        self,
        features: Tensor,
        positives: Positives,
        lr: float | Tensor,
        *,
        seed: int,
        step: int | Tensor,
    ) -> StepResult:
        """See OutputLayer."""
        self.check(features)
        weight, bias, momentum, bias_momentum = self.state()
        return StepResult(
            *fixed_fan_in_fused_step(
                features,
                weight,
                self.slots,
                bias,
                momentum,
                bias_momentum,
                positives,
                distinct=self.distinct,
                **self.options.of_step(lr, seed, step),
            )
        )

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer."""
        self.check(features, rows)
        if self.options.backend == "triton":
            from haste.kernels.triton.fixed import fixed_fan_in_forward

            return fixed_fan_in_forward(
                features, self.weight[rows], self.slots[rows], self.bias[rows],
                distinct=self.distinct, dtype=torch.float32,
            )  # fmt: skip
        return torch_backend.fixed_fan_in_linear(
            features.float(),
            widen(self.weight[rows]),
            self.slots[rows],
            self.bias[rows].float(),
        )
