"""Optimisers of what lies before the output layer, which trains itself."""

from __future__ import annotations

import optimi
import torch
from torch import nn

from haste.config import EncoderConfig
from haste.encoders.base import Encoder


def build_optimizers(
    encoder: Encoder, projection: nn.Module, config: EncoderConfig
) -> list[torch.optim.Optimizer]:
    """Adam with Kahan summation for bf16 parameters; weight decay not on biases and norms; lazy
    Adam for parameters with sparse gradients (rows without a gradient rest)."""
    sparse = {id(parameter): parameter for parameter in encoder.sparse_parameters()}
    decayed, plain = [], []
    for parameter in [*encoder.parameters(), *projection.parameters()]:
        if id(parameter) not in sparse and parameter.requires_grad:
            (plain if parameter.ndim < 2 else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[torch.optim.Optimizer] = [
        optimi.Adam(groups, lr=config.learning_rate, kahan_sum=config.dtype == "bfloat16")
    ]
    if sparse:
        optimizers.append(torch.optim.SparseAdam(list(sparse.values()), lr=config.learning_rate))
    return optimizers


def set_learning_rate(optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    """Give every parameter group the step size `lr`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


def optimizer_bytes(optimizers: list[torch.optim.Optimizer]) -> int:
    """Bytes of all state tensors."""
    return sum(
        value.numel() * value.element_size()
        for optimizer in optimizers
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
