"""Spartex's auxiliary loss: a small dense classifier of label clusters, faded out during training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from haste.kernels.state import Positives
from haste.layers.base import OutputLayer, StepResult, WrappedLayer
from haste.layers.dense import Dense


class WithAuxiliary(WrappedLayer):
    """Adds scale(step) x sum-BCE over clusters to the gradient of the features.

    A document is positive for a cluster when it is for any of its labels. The reported loss is that
    of `layer` alone, so that runs with and without it compare. At scale 0 nothing is computed, unless the
    step is a tensor: then the scale is one, too, and not to be looked at.
    """

    clusters: Tensor

    def __init__(
        self,
        layer: OutputLayer,
        auxiliary: Dense,
        clusters: Tensor,
        scale: Callable[[int | Tensor], float | Tensor],
    ) -> None:
        """`clusters` int32 [L]: row of `layer` -> cluster, a row of `auxiliary`."""
        super().__init__(layer)
        self.auxiliary = auxiliary
        self.register_buffer("clusters", clusters)
        self.scale = scale

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
        result = self.layer.step(features, positives, lr, seed=seed, step=step)
        scale = self.scale(step)
        if not isinstance(scale, Tensor) and scale == 0:
            return result
        own = self._cluster_positives(positives, features.shape[0])
        extra = self.auxiliary.step(features, own, lr, seed=seed, step=step)
        return StepResult(result.loss, result.grad_features + scale * extra.grad_features)

    @property
    def capturable(self) -> bool:
        """See OutputLayer."""
        return super().capturable and self.auxiliary.capturable

    def trained_parameters(self) -> int:
        """See OutputLayer."""
        return super().trained_parameters() + self.auxiliary.trained_parameters()

    def _cluster_positives(self, positives: Positives, batch: int) -> Positives:
        n_labels = len(self.clusters)
        cluster = self.clusters[positives.label.clamp(max=n_labels - 1).long()]
        if self.auxiliary.capturable:
            # to count each pair once, and to cut off labels that are not there, would wait for the GPU;
            # the dense kernels set what a positive changes, so that once more changes nothing, and pass
            # over clusters that are not there
            nobodys = self.auxiliary.n_labels
            cluster = torch.where(positives.label < n_labels, cluster, nobodys)
            return Positives(cluster, positives.row)
        pairs = torch.unique(cluster.long() * batch + positives.row.long())
        return Positives((pairs // batch).to(torch.int32), (pairs % batch).to(torch.int32))
