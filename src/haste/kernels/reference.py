"""Naive versions of every product and of the fused step, as references for the kernels.

They follow the definitions through a dense [L, H] matrix, in the dtype of their inputs (fp64 for an
oracle), so they are for small sizes only.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dense_weight(weight: Tensor, index: Tensor, n_features: int, group_size: int = 1) -> Tensor:
    """[L, H]: `weight` [L, F] densified: at the features that `index` int [K, F] names for each label's
    group; a feature that a group names twice gets the sum."""
    n_labels = weight.shape[0]
    rows = torch.arange(n_labels, device=weight.device) // group_size
    dense = torch.zeros(n_labels, n_features, dtype=weight.dtype, device=weight.device)
    return dense.scatter_add_(1, index.long()[rows], weight)


def block_index(index: Tensor, block_size: int) -> Tensor:
    """int32 [K, F]: the features of the blocks that `index` int32 [K, F / block_size] names."""
    steps = torch.arange(block_size, device=index.device, dtype=index.dtype)
    return (index[:, :, None] * block_size + steps).flatten(1).to(torch.int32)


def linear(
    features: Tensor, weight: Tensor, index: Tensor, bias: Tensor | None, group_size: int
) -> Tensor:
    """[B, L]: features [B, H] times the densified weights, plus bias [L]."""
    product = features @ dense_weight(weight, index, features.shape[1], group_size).T
    return product if bias is None else product + bias


def fused_step(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor,
    momentum: Tensor | None,
    bias_momentum: Tensor | None,
    label: Tensor,
    row: Tensor,
    *,
    group_size: int,
    lr: float,
    momentum_factor: float,
    weight_decay: float,
) -> dict[str, Tensor | None]:
    """One SGD step of sum-BCE through autograd, nothing in place.

    Shapes: features [B, H], weight [L, F], index [K, F], bias [L]; positives are the pairs
    (`label`, `row`). Returns loss, dx and the new weight, bias, momentum, bias_momentum.
    """
    features = features.detach().requires_grad_()
    leaves = [weight.detach().requires_grad_(), bias.detach().requires_grad_()]
    logits = linear(features, leaves[0], index, leaves[1], group_size)
    target = torch.zeros_like(logits)
    target[row.long(), label.long()] = 1
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    loss.backward()
    updated = []
    for leaf, velocity in zip(leaves, (momentum, bias_momentum), strict=True):
        gradient = leaf.grad + weight_decay * leaf.detach()
        velocity = gradient if velocity is None else momentum_factor * velocity + gradient
        updated += [leaf.detach() - lr * velocity, velocity]
    return {
        "loss": loss.detach(),
        "dx": features.grad,
        "weight": updated[0],
        "bias": updated[2],
        "momentum": None if momentum is None else updated[1],
        "bias_momentum": None if bias_momentum is None else updated[3],
    }
