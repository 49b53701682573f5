"""The dense layer: every label reads every feature."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.distributed import ALONE, Ranks
from haste.kernels import dense_fused_step
from haste.kernels.checks import check_count
from haste.kernels.rounding import dequantize
from haste.kernels.state import Positives, StepContext
from haste.layers.base import LayerOptions, LinearRows, StepResult

INITIAL_STD = 0.02


class Dense(LinearRows):
    """Weights [L, H]. The step takes the labels in at least `chunks` chunks (ELMO), so it holds at most
    B x L / chunks logits.

    A subclass may set `mask`, bool [L, H]: weights outside it stay 0.
    """

    mask: Tensor | None

    def __init__(
        self,
        n_features: int,
        n_labels: int,
        options: LayerOptions,
        random: torch.Generator | None,
        chunks: int = 1,
        ranks: Ranks = ALONE,
    ) -> None:
        chunks = check_count("chunks", chunks)
        super().__init__(n_features, n_labels, n_features, options, random, ranks)
        self.labels_per_chunk = -(-self.n_labels // chunks)
        self.register_buffer("mask", None)
        self.fill_normal(INITIAL_STD, random)

    def step(
        self, features: Tensor, positives: Positives[Tensor], context: StepContext
    ) -> StepResult:
        """See OutputLayer."""
        self.check(features)
        loss, dx = dense_fused_step(
            features, self.state, positives, context, self.options.sgd, mask=self.mask,
            labels_per_chunk=self.labels_per_chunk, loss_dtype=self.options.loss_dtype,
            loss=self.options.loss, backend=self.options.backend,
        )  # fmt: skip
        return StepResult(loss, dx)

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer."""
        self.check(features, rows)
        return torch.addmm(
            self.bias[rows].float(), features.float(), dequantize(self.weight[rows]).t()
        )
