"""The group-shared layer as an ordinary module: parameters, autograd, any optimiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from haste.kernels import group_linear, traced
from haste.kernels.checks import (
    FLOATS,
    check_count,
    check_index,
    check_inputs,
    check_number,
    check_one_of,
)
from haste.kernels.rounding import generator
from haste.kernels.state import FAN_INS, GROUP_SIZES
from haste.layers.connectivity import prune_mask, regrow_, sample_indices


class GroupFanInLinear(nn.Module):
    """A replacement for `nn.Linear` whose outputs read `fan_in` of the inputs, the same within a group.

    Outputs l = 0, 1, ... belong to groups of `group_size` in order, and each group has one random set of
    inputs; memory and arithmetic are fan_in / in_features of a dense layer's. `rewire` moves
    connections during training. For millions of outputs under binary cross-entropy,
    `haste.layers.Sparse` takes whole training steps without ever holding [B, L] logits.

    As nn.Linear it follows autocast, takes empty batches, is made on the meta device, and runs under
    torch.compile and torch.export. Index sets are a function of `seed`, weights are drawn by torch's generator.

    Raises KernelError for a fan-in, group size or dtype that has no kernel, for inputs of another width or
    device, and when index sets are loaded that name other inputs than it has.
    """

    index: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        fan_in: int,
        group_size: int = 32,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_one_of("dtype", dtype or torch.get_default_dtype(), FLOATS)
        self.in_features = in_features = check_count("in_features", in_features)
        self.out_features = out_features = check_count("out_features", out_features)
        self.fan_in = fan_in = check_one_of("fan_in", fan_in, FAN_INS)
        self.group_size = group_size = check_one_of("group_size", group_size, GROUP_SIZES)
        self.seed = seed
        self.weight = nn.Parameter(torch.empty(out_features, fan_in, device=device, dtype=dtype))
        offsets = torch.empty(out_features, device=device, dtype=dtype) if bias else None
        self.bias = None if offsets is None else nn.Parameter(offsets)
        groups = -(-out_features // group_size)
        index = torch.empty(groups, fan_in, dtype=torch.int32, device=self.weight.device)
        self.register_buffer("index", index)
        self.register_load_state_dict_pre_hook(_check_pattern)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw index sets and weights anew; on the meta device there is nothing to draw."""
        if self.weight.is_meta:
            return
        random = generator(self.weight.device, self.seed)
        self.index.copy_(sample_indices(len(self.index), self.fan_in, self.in_features, random))
        nn.init.uniform_(self.weight, -(self.fan_in**-0.5), self.fan_in**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., out_features] from inputs [..., in_features], under autocast in its dtype."""
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        check_inputs("inputs", inputs, self.in_features, weight.device, dims=None, allow_empty=True)
        rows = inputs.reshape(-1, self.in_features)
        device = inputs.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            rows, weight = rows.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        if torch.compiler.is_exporting():
            outputs = traced.exported(rows, weight, self.index, bias, self.group_size)
        elif torch.compiler.is_compiling() or rows.is_meta:
            outputs = traced.operator(rows, weight, self.index, bias, self.group_size)
        else:
            outputs = group_linear(
                rows, weight, self.index, bias, group_size=self.group_size, unique_indices=True,
                index_checked=True,
            )  # fmt: skip
        # as those of nn.Linear, which may be viewed in any shape
        return outputs.contiguous().view(*inputs.shape[:-1], self.out_features)

    @torch.no_grad()
    def rewire(
        self,
        fraction: float = 0.2,
        *,
        step: int,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> int:
        """Move the `fraction` of connections with the lowest mean |weight| over their group to random
        new inputs, with weights 0; returns how many moved.

        New inputs are a function of the layer's seed and `step`, which must differ from call to call.
        `optimizer`: one that has this layer's weight; its state of moved connections is set to 0.
        """
        check_number("fraction", fraction, 0, 1)
        groups = len(self.index)
        padded = self.weight.new_zeros(groups * self.group_size, self.fan_in)
        padded[: self.out_features] = self.weight.abs()
        score = padded.view(groups, self.group_size, self.fan_in).sum(1, dtype=torch.float32)
        members = torch.full((groups, 1), self.group_size, device=score.device)
        members[-1] -= groups * self.group_size - self.out_features
        moved = prune_mask(score / members, fraction, "global")
        random = generator(self.weight.device, self.seed, step)
        regrow_(self.index, moved, self.in_features, random)
        pruned = moved.repeat_interleave(self.group_size, dim=0)[: self.out_features]
        state = {} if optimizer is None else optimizer.state.get(self.weight, {})
        for values in (self.weight, *state.values()):
            if isinstance(values, Tensor) and values.shape == self.weight.shape:
                values.masked_fill_(pruned, 0)
        return int(moved.sum())

    def extra_repr(self) -> str:
        """As nn.Linear's, with the pattern."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"fan_in={self.fan_in}, group_size={self.group_size}, bias={self.bias is not None}"
        )


def _check_pattern(
    layer: GroupFanInLinear, state_dict: Mapping[str, Tensor], prefix: str, *_: object
) -> None:
    """Raise KernelError before index sets are loaded that name inputs which the layer has not: their shape
    does not tell, and kernels read what they name."""
    name = f"{prefix}index"
    if name in state_dict and not state_dict[name].is_meta:
        check_index(name, state_dict[name], layer.in_features)
