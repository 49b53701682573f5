"""The group-shared layer as an ordinary module: parameters, autograd, any optimiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from haste.kernels import group_linear
from haste.kernels.checks import FLOATS, check_count, check_inputs, check_number, check_one_of
from haste.kernels.rounding import generator
from haste.kernels.state import FAN_INS, GROUP_SIZES
from haste.layers.connectivity import prune_mask, regrow_, sample_indices


class GroupFanInLinear(nn.Module):
    """A replacement for `nn.Linear` whose outputs read `fan_in` of the inputs, the same within a group.

    Outputs l = 0, 1, ... belong to groups of `group_size` in order, and each group has one random set of
    inputs; memory and arithmetic are fan_in / in_features of a dense layer's. `rewire` moves
    connections during training. For millions of outputs under binary cross-entropy,
    `haste.layers.Sparse` takes whole training steps without ever holding [B, L] logits.

    Raises KernelError for a fan-in, group size or dtype that has no kernel, and for inputs of another
    width or device.
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
        check_count("in_features", in_features)
        check_count("out_features", out_features)
        check_one_of("dtype", dtype or torch.get_default_dtype(), FLOATS)
        check_one_of("fan_in", fan_in, FAN_INS)
        check_one_of("group_size", group_size, GROUP_SIZES)
        self.in_features = in_features
        self.out_features = out_features
        self.fan_in = fan_in
        self.group_size = group_size
        factory = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(out_features, fan_in, **factory))
        self.bias = nn.Parameter(torch.zeros(out_features, **factory)) if bias else None
        groups = -(-out_features // group_size)
        random = generator(self.weight.device, seed)
        self.register_buffer("index", sample_indices(groups, fan_in, in_features, random))
        nn.init.uniform_(self.weight, -(fan_in**-0.5), fan_in**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., out_features] from inputs [..., in_features]."""
        check_inputs("inputs", inputs, self.in_features, self.weight.device, dims=None)
        outputs = group_linear(
            inputs.reshape(-1, self.in_features).contiguous(),
            self.weight,
            self.index,
            self.bias,
            group_size=self.group_size,
            unique_indices=True,
            index_checked=True,
        )
        return outputs.view(*inputs.shape[:-1], self.out_features)

    @torch.no_grad()
    def rewire(self, fraction: float = 0.2, *, seed: int) -> int:
        """Move the `fraction` of connections with the lowest mean |weight| over their group to random
        new inputs, with weights 0; returns how many moved. The optimiser's state is not changed."""
        check_number("fraction", fraction, 0, 1)
        groups = len(self.index)
        padded = self.weight.new_zeros(groups * self.group_size, self.fan_in)
        padded[: self.out_features] = self.weight.abs()
        score = padded.view(groups, self.group_size, self.fan_in).sum(1).float()
        members = torch.full((groups, 1), self.group_size, device=score.device)
        members[-1] -= groups * self.group_size - self.out_features
        moved = prune_mask(score / members, fraction, "global")
        random = generator(self.weight.device, seed)
        regrow_(self.index, moved, self.in_features, random)
        pruned = moved.repeat_interleave(self.group_size, dim=0)[: self.out_features]
        self.weight.masked_fill_(pruned, 0)
        return int(moved.sum())

    def extra_repr(self) -> str:
        """As nn.Linear's, with the pattern."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"fan_in={self.fan_in}, group_size={self.group_size}, bias={self.bias is not None}"
        )
