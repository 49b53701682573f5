"""Unstructured dynamic sparsity: a dense weight matrix under a mask, pruned by magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from haste.kernels.loss import LOSSES
from haste.kernels.rounding import dequantize, storage_view
from haste.kernels.state import Positives
from haste.kernels.torch_backend import positives_of
from haste.layers.base import Examples, LayerOptions, RewireStats, device_of
from haste.layers.connectivity import bottom_k_mask, prune_mask, sample_indices
from haste.layers.dense import Dense


class Unstructured(Dense):
    """L x F of the L x H weights are in use (SET, or RigL with growth "gradient").

    The mask takes a byte per weight and the step is a dense product, so nothing is saved: the layer is for
    comparing accuracy at an equal number of weights.
    """

    mask: Tensor

    def __init__(
        self,
        n_features: int,
        n_labels: int,
        fan_in: int,
        options: LayerOptions,
        random: torch.Generator | None,
    ) -> None:
        super().__init__(n_features, n_labels, options, random)
        index = sample_indices(n_labels, fan_in, n_features, random)
        mask = torch.zeros(n_labels, n_features, dtype=torch.bool, device=device_of(random))
        self.mask = mask.scatter_(1, index.long(), True)
        self.fill_uniform(fan_in, random)
        storage_view(self.weight).mul_(self.mask)

    def rewire(self, random: torch.Generator, examples: Examples | None = None) -> RewireStats:
        """Prune the smallest weights, over the layer or in each label, or those below the threshold, and regrow as
        many."""
        by_gradient = self.options.growth == "gradient"
        if by_gradient:
            features, positives = self.check_examples(examples)
        used = int(self.mask.sum())
        score = dequantize(self.weight).abs().masked_fill_(~self.mask, torch.inf)
        if self.options.threshold:
            pruned = score < self.options.threshold
        elif self.options.scope == "global":
            pruned = bottom_k_mask(score, int(self.options.fraction * used))
        else:
            share = self.options.fraction * used / score.numel()
            pruned = prune_mask(score, share, "group") & self.mask
        key = torch.rand(self.mask.shape, generator=random, device=self.mask.device)
        if by_gradient:
            key = self._gradient(features, positives)
        self.mask &= ~pruned
        # those just pruned are taken where no others are left
        key.masked_fill_(pruned, -1).masked_fill_(self.mask, -torch.inf)
        grown = bottom_k_mask(-key, int(pruned.sum()))
        self.mask |= grown
        storage_view(self.weight).mul_(self.mask).masked_fill_(grown, 0)
        if self.options.reset_momentum:
            for momentum in self.weight_momenta:
                momentum.masked_fill_(pruned | grown, 0)
        return RewireStats(indices=used, moved=int((grown & ~pruned).sum()))

    def _gradient(self, features: Tensor, positives: Positives[Tensor]) -> Tensor:
        rows = slice(0, self.n_labels)
        logits = self.logits(features, rows).t().contiguous()
        _, dz = LOSSES[self.options.loss](logits, *positives_of(positives, rows), torch.float32)
        return (dz @ features.float()).abs()

    def trained_parameters(self) -> int:
        """Weights in use and biases."""
        return int(self.mask.sum()) + self.bias.numel()
