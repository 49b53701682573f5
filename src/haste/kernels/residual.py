"""What a transformer's layer does between its products, and the gradients of that.

One pass over activations each on a GPU. Dropout is a function of (seed, site, place), so that no mask is
kept for the backward pass and a forward pass that is taken again is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from haste.kernels.rounding import generator


@dataclass(frozen=True)
class Dropout:
    """A share `p` of values, in [0, 1) in steps of 2⁻¹⁶, becomes 0 and the rest is scaled by 1 / (1 - p)."""

    p: float
    seed: Tensor | None
    """int64 [1], on the device, or None where p is 0"""
    site: int
    """which of the dropouts of a model it is"""

    def factor(self, like: Tensor) -> Tensor:
        """What values of the shape of `like` are multiplied by, on a CPU."""
        assert self.seed is not None, "p is above 0"
        random = generator(like.device, int(self.seed), self.site)
        kept = torch.rand(like.shape, generator=random, device=like.device) >= self.p
        return kept.to(like.dtype).mul_(1 / (1 - self.p))


def add_norm(x: Tensor, a: Tensor, norm: nn.LayerNorm, dropout: Dropout) -> tuple[Tensor, Tensor]:
    """z = x + dropout(a) and norm(z), all [T, H]."""
    if x.is_cuda:
        from haste.kernels.triton import residual

        return residual.add_norm(
            x, a, norm.weight, norm.bias, norm.eps, *_dropout_arguments(dropout)
        )
    z = x + (a * dropout.factor(a) if dropout.p else a)
    return z, norm(z)


def norm_backward(
    dy: Tensor, z: Tensor, norm: nn.LayerNorm, dropout: Dropout, gradients: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The inverse of `add_norm`: the gradients of z, which is that of x, and of a, from dy, that of norm(z).

    `gradients` [H] are overwritten: those of the norm's weight and bias, and the sum of that of a, which
    is the gradient of a bias that was added to it. `dy` and `z` may be overwritten, the results may be
    where they were, and both may be one tensor.
    """
    if z.is_cuda:
        from haste.kernels.triton import residual

        arguments = norm.weight, norm.eps, *_dropout_arguments(dropout)
        return residual.norm_backward(dy, z, *arguments, gradients)
    _, mean, inverse = torch.native_layer_norm(z, z.shape[1:], None, None, norm.eps)
    dz, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
        dy, z, z.shape[1:], mean, inverse, norm.weight, norm.bias, [True] * 3
    )
    da = dz * dropout.factor(dz) if dropout.p else dz
    for to, value in zip(gradients, (d_weight, d_bias, da.sum(0)), strict=True):
        to.copy_(value)
    return dz, da


def gelu_backward(u: Tensor, dg: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of u [T, W] from dg, that of gelu(u), and gelu(u); both arguments may be overwritten.

    `gradient` [W] becomes the gradient's sum over tokens, that of a bias that was added to u.
    """
    if u.is_cuda:
        from haste.kernels.triton import residual

        return residual.gelu_backward(u, dg, gradient)
    du = torch.ops.aten.gelu_backward(dg, u)
    gradient.copy_(du.sum(0))
    return du, F.gelu(u)


def _dropout_arguments(dropout: Dropout) -> tuple[float, Tensor | None, int]:
    return dropout.p, dropout.seed, dropout.site
