"""Group-shared fixed fan-in, the method's tail: G labels share one index set of F features."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.data.batches import Positives
from haste.kernels import torch_backend
from haste.kernels.rounding import mix
from haste.kernels.update import Sgd
from haste.layers.base import LayerOptions
from haste.layers.indexed import IndexedRows, State


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

    def _fused_step(
        self, features: Tensor, state: State, positives: Positives, sgd: Sgd, seed: int, step: int
    ) -> tuple[Tensor, Tensor]:
        # the released code's bf16 loss is for comparison only and has no kernel
        if self.options.backend == "triton" and self.options.loss_dtype == torch.float32:
            from haste.kernels import triton_group

            return triton_group.group_step(
                features.contiguous(),
                *state,
                positives,
                group_size=self.unit_size,
                sgd=sgd,
                seed=mix(seed, 1),
                step=step,
            )
        return torch_backend.group_step(
            features.float(),
            *state,
            positives,
            group_size=self.unit_size,
            sgd=sgd,
            random=self.random_of(seed, step),
            loss_dtype=self.options.loss_dtype,
        )

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer. Slices that begin inside a group are allowed."""
        first = rows.start // self.unit_size
        begin = first * self.unit_size
        last = -(-rows.stop // self.unit_size)
        logits = torch_backend.group_linear(
            features.float(),
            self.weight[begin : rows.stop].float(),
            self.index[first:last],
            self.bias[begin : rows.stop].float(),
            group_size=self.unit_size,
        )
        return logits[:, rows.start - begin :]
