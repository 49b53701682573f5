"""Naive versions of every product and of the fused step, as references for the kernels.

They follow the definitions through a dense [L, H] matrix, in the dtype of their inputs (fp64 for an
oracle), so they are for small sizes only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from haste.kernels.state import LayerState, Positives, Sgd


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
    state: LayerState,
    index: Tensor,
    positives: Positives[Tensor],
    lr: float,
    sgd: Sgd,
    *,
    group_size: int,
) -> dict[str, Tensor | None]:
    """One SGD step of sum-BCE through autograd, nothing in place and nothing rounded.

    Shapes: features [B, H], index [K, F]. Returns loss, dx and the new tensors of `state` by their names.
    """
    features = features.detach().requires_grad_()
    leaves = [value.detach().requires_grad_() for value in (state.weight, state.bias)]
    logits = linear(features, leaves[0], index, leaves[1], group_size)
    target = torch.zeros_like(logits)
    target[positives.doc.long(), positives.label_row.long()] = 1
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    loss.backward()
    results = {"loss": loss.detach(), "dx": features.grad}
    for (name, leaf), (momentum_name, momentum) in zip(
        zip(("weight", "bias"), leaves, strict=True),
        (("momentum", state.momentum), ("bias_momentum", state.bias_momentum)),
        strict=True,
    ):
        assert leaf.grad is not None, "the loss reads all of `leaves`"
        velocity = leaf.grad + sgd.weight_decay * leaf.detach()
        if momentum is not None:
            velocity = sgd.momentum * momentum + velocity
        results |= {name: leaf.detach() - lr * velocity}
        results |= {momentum_name: None if momentum is None else velocity}
    return results
