"""Optimisers of encoder and projection; the output layer updates itself."""

from __future__ import annotations

from typing import Any

import optimi
import torch
from torch import Tensor, nn

from haste.config import EncoderConfig
from haste.encoders.base import Encoder
from haste.training import flat


def build_optimizers(
    encoder: Encoder, projection: nn.Module, config: EncoderConfig
) -> list[torch.optim.Optimizer]:
    """Adam with Kahan summation for bf16 parameters; weight decay not on biases and norms; lazy
    Adam for parameters with sparse gradients (rows without a gradient rest).

    The dense parameters become parts of one (`haste.training.flat`) for each weight decay.
    """
    sparse = {id(parameter): parameter for parameter in encoder.sparse_parameters()}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in [*encoder.parameters(), *projection.parameters()]:
        if id(parameter) not in sparse and parameter.requires_grad:
            (plain if parameter.ndim < 2 else decayed).append(parameter)
    kinds = [(decayed, config.weight_decay), (plain, 0.0)]
    groups: list[dict[str, Any]] = [
        {"params": [flat.flatten(members)], "weight_decay": decay}
        for members, decay in kinds
        if members
    ]
    if not groups:
        return []
    adam = optimi.Adam(
        groups,
        lr=config.learning_rate,
        kahan_sum=config.dtype == "bfloat16",
        # it does not always find out by itself that parameters are on a GPU
        triton=True if groups[0]["params"][0].is_cuda else None,
    )
    optimizers: list[torch.optim.Optimizer] = [adam]
    if sparse:
        optimizers.append(torch.optim.SparseAdam(list(sparse.values()), lr=config.learning_rate))
    return optimizers


def backward(
    encoder: Encoder,
    projection: nn.Module,
    features: Tensor,
    gradient: Tensor,
) -> None:
    """Gradients of what `build_optimizers` was given, from that of `features`; both [B, H]."""
    gradient = gradient.to(features.dtype)
    written = {id(parameter) for parameter in encoder.written_gradients()}
    parameters = [*encoder.parameters(), *projection.parameters()]
    unwritten = [
        parameter
        for parameter in parameters
        if parameter.requires_grad and id(parameter) not in written
    ]
    if unwritten:
        flat.backward(features, gradient, unwritten)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    """Give every parameter group the step size `lr`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


def step(optimizers: list[torch.optim.Optimizer]) -> None:
    """Step by the gradients there are, and forget these."""
    for optimizer in optimizers:
        optimizer.step()
        if not isinstance(optimizer, optimi.Adam):
            # those of Adam are parts of one tensor, and overwritten in place
            optimizer.zero_grad()


def parameters(optimizers: list[torch.optim.Optimizer]) -> list[nn.Parameter]:
    """What the optimisers step."""
    return [
        parameter
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def optimizer_bytes(optimizers: list[torch.optim.Optimizer]) -> int:
    """Bytes of all state tensors."""
    return sum(
        value.numel() * value.element_size()
        for optimizer in optimizers
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
