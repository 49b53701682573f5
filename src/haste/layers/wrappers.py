"""Layers around a layer: dropout on its features, and Spartex's auxiliary loss beside it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from haste.config import AuxiliaryConfig
from haste.kernels.checks import check_share
from haste.kernels.dropout import dropout
from haste.kernels.rounding import mix
from haste.kernels.state import Positives, StepContext
from haste.layers.base import Examples, OutputLayer, RewireStats, StepResult, unique_positives


class WrappedLayer(OutputLayer):
    """A layer that changes the step of another layer and nothing else."""

    def __init__(self, layer: OutputLayer) -> None:
        super().__init__()
        self.layer = layer
        self.n_labels = layer.n_labels
        self.n_features = layer.n_features

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer."""
        return self.layer.logits(features, rows)

    def topk(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See OutputLayer."""
        return self.layer.topk(features, k)

    def rewire(self, random: torch.Generator, examples: Examples | None = None) -> RewireStats:
        """See OutputLayer."""
        return self.layer.rewire(random, examples)

    def add_to_bias(self, offset: float) -> None:
        """See OutputLayer."""
        self.layer.add_to_bias(offset)


class FeatureDropout(WrappedLayer):
    """Trains `layer` on features of which a share `p` is zeroed and the rest scaled by 1 / (1 - p).

    The mask is a function of (seed, step, part), so a resumed run draws the same one.
    """

    def __init__(self, layer: OutputLayer, p: float, part: int, backend: str = "torch") -> None:
        """`backend`: torch or triton."""
        super().__init__(layer)
        check_share("p", p)
        self.p = p
        self.part = part
        self.backend = backend

    def step(
        self, features: Tensor, positives: Positives[Tensor], context: StepContext
    ) -> StepResult:
        """See OutputLayer."""
        self.check(features)

        def dropped(values: Tensor) -> Tensor:
            seed = mix(context.seed, 2, self.part)
            return dropout(values, self.p, seed=seed, step=context.step, backend=self.backend)

        result = self.layer.step(dropped(features), positives, context)
        return StepResult(result.loss, dropped(result.dx))


class WithAuxiliary(WrappedLayer):
    """Adds scale(step) x sum-BCE over clusters to the gradient of the features.

    A document is positive for a cluster when it is for any of its labels. The reported loss is that
    of `layer` alone, so that runs with and without it compare. At scale 0 nothing is computed, unless the
    step is a tensor: then the scale is a tensor, too, and reading it would synchronize.
    """

    clusters: Tensor

    def __init__(
        self,
        layer: OutputLayer,
        auxiliary: OutputLayer,
        clusters: Tensor,
        scale: Callable[[int | Tensor], float | Tensor],
    ) -> None:
        """`clusters` int32 [L]: row of `layer` -> cluster, a row of `auxiliary`."""
        super().__init__(layer)
        self.auxiliary = auxiliary
        self.register_buffer("clusters", clusters)
        self.scale = scale

    def step(
        self, features: Tensor, positives: Positives[Tensor], context: StepContext
    ) -> StepResult:
        """See OutputLayer."""
        result = self.layer.step(features, positives, context)
        scale = self.scale(context.step)
        if not isinstance(scale, Tensor) and scale == 0:
            return result
        cluster_positives = self._cluster_positives(positives, features.shape[0])
        auxiliary = self.auxiliary.step(features, cluster_positives, context)
        return StepResult(result.loss, result.dx + scale * auxiliary.dx)

    def _cluster_positives(self, positives: Positives[Tensor], batch: int) -> Positives[Tensor]:
        n_labels = len(self.clusters)
        known = positives.label_row < n_labels
        cluster = self.clusters[positives.label_row.clamp(max=n_labels - 1).long()]
        if self.auxiliary.capturable:
            # removing duplicate pairs and padding would synchronize, and need not be done: the dense
            # kernels overwrite dz of a positive, so duplicates change nothing, and ignore unknown clusters
            pad_label = self.auxiliary.n_labels
            cluster = torch.where(known, cluster, pad_label)
            cluster, order = cluster.sort(stable=True)
            return Positives(cluster, positives.doc[order])
        return unique_positives(cluster[known], positives.doc[known], batch)


def auxiliary_scale(
    step: int | Tensor, total_steps: int, config: AuxiliaryConfig
) -> float | Tensor:
    """Weight of the auxiliary loss at step `step` (from 0): cosine decay to the cut-off, then 0.

    A tensor for a tensor, on its device.
    """
    end = config.cutoff * total_steps
    if not isinstance(step, int):
        factor = 0.5 * (1 + (math.pi * step / end).cos()) if end else 0.0
        return (step < end) * config.scale * factor
    if config.scale == 0 or step >= end:
        return 0.0
    return config.scale * 0.5 * (1 + math.cos(math.pi * step / end))
