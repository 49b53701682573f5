"""Group-shared fixed fan-in, the method's tail: G labels share one index set of F features."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.kernels import group_fused_step, torch_backend
from haste.kernels.rounding import widen
from haste.kernels.state import Positives
from haste.layers.base import LayerOptions, StepResult
from haste.layers.indexed import IndexedRows


class GroupFanIn(IndexedRows):
    """z_l = <w_l, h[I_g(l)]> + b_l with g(l) = l // group_size: weights [L, F], indices [L / G, F].

    With `run` > 1 a group reads contiguous, aligned runs of features: the block-sparse baseline.
    """

    def __init__(
        self,
        n_features: int,
        n_labels: int,
        fan_in: int,
        group_size: int,
        options: LayerOptions,
        random: torch.Generator,
        run: int = 1,
    ) -> None:
        super().__init__(
            n_features, n_labels, fan_in, options, random, unit_size=group_size, run=run
        )

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
            *group_fused_step(
                features,
                weight,
                self.slots,
                bias,
                momentum,
                bias_momentum,
                positives,
                group_size=self.unit_size,
                run=self.run,
                distinct=self.distinct,
                deterministic=self.options.deterministic,
                **self.options.of_step(lr, seed, step),
            )
        )

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer. Slices that begin inside a group are allowed."""
        self.check(features, rows)
        first = rows.start // self.unit_size
        begin = first * self.unit_size
        last = -(-rows.stop // self.unit_size)
        own = slice(begin, rows.stop)
        if self.options.backend == "triton":
            from haste.kernels.triton.group_linear import group_forward

            logits = group_forward(
                features, self.weight[own], self.slots[first:last], self.bias[own],
                group_size=self.unit_size, run=self.run, dtype=torch.float32,
            )  # fmt: skip
        else:
            logits = torch_backend.group_linear(
                features.float(),
                widen(self.weight[own]),
                self.index[first:last],
                self.bias[own].float(),
                group_size=self.unit_size,
            )
        return logits[:, rows.start - begin :]
