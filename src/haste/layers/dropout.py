"""Dropout on the features that one part of the output layer reads."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.data.batches import Positives
from haste.kernels.rounding import generator
from haste.layers.base import OutputLayer, RewireStats, StepResult


class FeatureDropout(OutputLayer):
    """Trains `layer` on features of which a share `p` is zeroed and the rest scaled by 1 / (1 - p).

    The mask is a function of (seed, step, part), so a run that goes on draws the same one.
    """

    def __init__(self, layer: OutputLayer, p: float, part: int) -> None:
        super().__init__()
        self.layer = layer
        self.p = p
        self.part = part
        self.n_labels = layer.n_labels
        self.n_features = layer.n_features

    def step(
        self, features: Tensor, positives: Positives, lr: float, *, seed: int, step: int
    ) -> StepResult:
        """See OutputLayer."""
        random = generator(features.device, seed, step, 2, self.part)
        kept = torch.rand(features.shape, generator=random, device=features.device) >= self.p
        factor = kept.to(features.dtype).mul_(1 / (1 - self.p))
        result = self.layer.step(features * factor, positives, lr, seed=seed, step=step)
        return StepResult(result.loss, result.grad_features * factor)

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer."""
        return self.layer.logits(features, rows)

    def rewire(
        self,
        random: torch.Generator,
        features: Tensor | None = None,
        positives: Positives | None = None,
    ) -> RewireStats:
        """See OutputLayer."""
        return self.layer.rewire(random, features, positives)

    def trained_parameters(self) -> int:
        """See OutputLayer."""
        return self.layer.trained_parameters()
