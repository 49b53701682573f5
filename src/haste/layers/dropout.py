"""Dropout on the features that one part of the output layer reads."""

from __future__ import annotations

from torch import Tensor

from haste.kernels.checks import check_share
from haste.kernels.dropout import dropout
from haste.kernels.rounding import mix
from haste.kernels.state import Positives
from haste.layers.base import OutputLayer, StepResult, WrappedLayer


class FeatureDropout(WrappedLayer):
    """Trains `layer` on features of which a share `p` is zeroed and the rest scaled by 1 / (1 - p).

    The mask is a function of (seed, step, part), so a run that goes on draws the same one.
    """

    def __init__(self, layer: OutputLayer, p: float, part: int, backend: str = "torch") -> None:
        """`backend`: torch or triton."""
        super().__init__(layer)
        check_share("p", p)
        self.p = p
        self.part = part
        self.backend = backend

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

        def dropped(values: Tensor) -> Tensor:
            return dropout(
                values, self.p, seed=mix(seed, 2, self.part), step=step, backend=self.backend
            )

        result = self.layer.step(dropped(features), positives, lr, seed=seed, step=step)
        return StepResult(result.loss, dropped(result.grad_features))
