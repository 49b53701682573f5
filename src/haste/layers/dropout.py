"""Dropout on the features that one part of the output layer reads."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.data.batches import Positives
from haste.kernels.rounding import generator
from haste.layers.base import OutputLayer, StepResult, WrappedLayer


class FeatureDropout(WrappedLayer):
    """Trains `layer` on features of which a share `p` is zeroed and the rest scaled by 1 / (1 - p).

    The mask is a function of (seed, step, part), so a run that goes on draws the same one.
    """

    def __init__(self, layer: OutputLayer, p: float, part: int) -> None:
        super().__init__(layer)
        self.p = p
        self.part = part

    def step(
        self, features: Tensor, positives: Positives, lr: float, *, seed: int, step: int
    ) -> StepResult:
        """See OutputLayer."""
        random = generator(features.device, seed, step, 2, self.part)
        kept = torch.rand(features.shape, generator=random, device=features.device) >= self.p
        factor = kept.to(features.dtype).mul_(1 / (1 - self.p))
        result = self.layer.step(features * factor, positives, lr, seed=seed, step=step)
        return StepResult(result.loss, result.grad_features * factor)
