"""The one abstraction: an output layer that takes its own training step and finds the best labels."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from haste.errors import KernelError
from haste.kernels.checks import (
    BACKENDS,
    LOSS_DTYPES,
    STORED,
    check_count,
    check_inputs,
    check_labels,
    check_number,
    check_one_of,
    check_positives,
)
from haste.kernels.rounding import FP8, ROUNDINGS, round_to
from haste.kernels.state import Positives
from haste.kernels.topk import topk

_BLOCK = 1 << 26
"""numbers that are drawn together"""


@dataclass(frozen=True)
class StepResult:
    """Loss (fp32 scalar, summed over batch and labels) and d(loss)/d(features) fp32 [B, H]."""

    loss: Tensor
    grad_features: Tensor


@dataclass(frozen=True)
class RewireStats:
    """Slots of the pattern, and how many of them moved."""

    slots: int = 0
    moved: int = 0

    def __add__(self, other: RewireStats) -> RewireStats:
        return RewireStats(self.slots + other.slots, self.moved + other.moved)


@dataclass(frozen=True)
class LayerOptions:
    """What all layers share: formats, the optimiser's constants, how connections move."""

    dtype: torch.dtype = torch.float32
    loss_dtype: torch.dtype = torch.float32
    momentum: float = 0.0
    weight_decay: float = 0.0
    rounding: str = "stochastic"
    growth: str = "random"
    scope: str = "global"
    fraction: float = 0.2
    reset_momentum: bool = True
    with_replacement: bool = False
    backend: str = "torch"
    """torch or triton"""
    deterministic: bool = False
    """sums in a fixed order"""

    def __post_init__(self) -> None:
        check_one_of("dtype", self.dtype, STORED)
        check_one_of("loss_dtype", self.loss_dtype, LOSS_DTYPES)
        check_one_of("rounding", self.rounding, ROUNDINGS)
        check_one_of("growth", self.growth, ("none", "random", "gradient"))
        check_one_of("scope", self.scope, ("global", "group"))
        check_one_of("backend", self.backend, BACKENDS)
        check_number("fraction", self.fraction, 0, 1)
        check_number("momentum", self.momentum, 0, 1)
        check_number("weight_decay", self.weight_decay, 0, sys.float_info.max)

    def of_step(self, lr: float | Tensor, seed: int, step: int | Tensor) -> dict[str, Any]:
        """What every fused step of `haste.kernels` takes of these."""
        return {
            "lr": lr,
            "momentum_factor": self.momentum,
            "weight_decay": self.weight_decay,
            "seed": seed,
            "step": step,
            "rounding": self.rounding,
            "loss_dtype": self.loss_dtype,
            "backend": self.backend,
        }


class OutputLayer(nn.Module, ABC):
    """Scores L labels from features [B, H] and trains itself.

    Rows are the layer's internal order of labels; `topk` returns rows, and who knows the order of
    labels (`haste.labels.order`) turns them into label ids. Weights, biases and momenta are buffers,
    not parameters: no outside optimiser may touch them.
    """

    n_labels: int
    n_features: int

    @abstractmethod
    def step(
        self,
        features: Tensor,
        positives: Positives,
        lr: float | Tensor,
        *,
        seed: int,
        step: int | Tensor,
    ) -> StepResult:
        """One SGD step of sum-BCE on features [B, H] (no graph), updating the layer in place.

        `positives`: pairs (row of this layer, row of the batch), sorted; pairs of rows that the layer
        does not have count for nothing. `seed` and `step` fix the random numbers of rounding and
        dropout. Where the layer's backend is triton, `lr` (fp32) and `step` (int32) may be tensors of one
        number on its device, and nothing waits for that.
        """

    @abstractmethod
    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """fp32 [B, n]: the logits of a slice of rows."""

    def topk(self, features: Tensor, k: int, labels_a_tile: int = 65536) -> tuple[Tensor, Tensor]:
        """Scores fp32 [B, k] and rows int64 [B, k], best first, without a B x L tensor."""
        return topk(lambda rows: self.logits(features, rows), self.n_labels, k, labels_a_tile)

    def rewire(
        self,
        random: torch.Generator,  # noqa: ARG002
        features: Tensor | None = None,  # noqa: ARG002
        positives: Positives | None = None,  # noqa: ARG002
    ) -> RewireStats:
        """Move the weakest connections; gradient growth looks at the batch given. Dense: nothing."""
        return RewireStats()

    @abstractmethod
    def shift(self, logits: float) -> None:
        """Add a number to the logits of all labels, rounded as biases are."""

    @property
    @abstractmethod
    def capturable(self) -> bool:
        """Whether `step` takes its numbers from memory and waits for nothing, as a CUDA graph must."""

    @abstractmethod
    def trained_parameters(self) -> int:
        """Weights and biases that training moves."""

    def check(self, features: Tensor | None, rows: slice | None = None) -> None:
        """Raise KernelError unless features are [B, H] on this layer's device, and `rows` are its own."""
        check_inputs("features", features, self.n_features, next(self.buffers()).device)
        if rows is not None:
            check_labels(rows, self.n_labels)

    def check_gradient(self, features: Tensor | None, positives: Positives | None) -> None:
        """Raise KernelError unless there are the features and positives that gradient growth looks at."""
        self.check(features)
        if positives is None:
            raise KernelError("positives: growth by gradient needs a batch; give its positives.")
        check_positives(positives, len(features), features.device)

    def layer_bytes(self) -> int:
        """Bytes of weights, indices, biases and momenta."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())


class WrappedLayer(OutputLayer):
    """A layer that changes another's step and nothing else."""

    def __init__(self, layer: OutputLayer) -> None:
        super().__init__()
        self.layer = layer
        self.n_labels = layer.n_labels
        self.n_features = layer.n_features

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer."""
        return self.layer.logits(features, rows)

    def rewire(
        self,
        random: torch.Generator,
        features: Tensor | None = None,
        positives: Positives | None = None,
    ) -> RewireStats:
        """See OutputLayer."""
        return self.layer.rewire(random, features, positives)

    def shift(self, logits: float) -> None:
        """See OutputLayer."""
        self.layer.shift(logits)

    @property
    def capturable(self) -> bool:
        """See OutputLayer."""
        return self.layer.capturable

    def trained_parameters(self) -> int:
        """See OutputLayer."""
        return self.layer.trained_parameters()


class LinearRows(OutputLayer):
    """What layers with one weight row and one bias a label share: storage and random numbers."""

    weight: Tensor
    bias: Tensor
    momentum: Tensor | None
    bias_momentum: Tensor | None

    def __init__(
        self,
        n_features: int,
        n_labels: int,
        row_size: int,
        options: LayerOptions,
        device: torch.device,
    ) -> None:
        super().__init__()
        for name, size in (
            ("n_features", n_features),
            ("n_labels", n_labels),
            ("fan_in", row_size),
        ):
            check_count(name, size)
        self.n_features = n_features
        self.n_labels = n_labels
        self.options = options
        shape = (n_labels, row_size)
        self.register_buffer("weight", torch.empty(shape, dtype=options.dtype, device=device))
        # E4M3 is for weights: biases need more digits, and velocities a wider range
        own = torch.bfloat16 if options.dtype == FP8 else options.dtype
        self.register_buffer("bias", torch.zeros(n_labels, dtype=own, device=device))
        velocity = bias_velocity = None
        if options.momentum > 0:
            velocity = torch.zeros(shape, dtype=own, device=device)
            bias_velocity = torch.zeros_like(self.bias)
        self.register_buffer("momentum", velocity)
        self.register_buffer("bias_momentum", bias_velocity)

    def fill_uniform(self, fan_in: int, random: torch.Generator) -> None:
        """Weights U(-1/sqrt F, 1/sqrt F)."""
        bound = fan_in**-0.5
        for rows in self._blocks():
            values = torch.rand(rows.shape, generator=random, device=rows.device)
            _fill(rows, values.mul_(2 * bound).sub_(bound))

    def fill_normal(self, std: float, random: torch.Generator) -> None:
        """Weights N(0, std)."""
        for rows in self._blocks():
            values = torch.randn(rows.shape, generator=random, device=rows.device)
            _fill(rows, values.mul_(std))

    def shift(self, logits: float) -> None:
        """See OutputLayer."""
        self.bias.copy_(self.bias.float() + logits)

    def _blocks(self) -> tuple[Tensor, ...]:
        """The weights in blocks of rows, so that float32 copies of them stay small."""
        return self.weight.split(max(1, _BLOCK // self.weight.shape[1]))

    def state(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """weight, bias and their momenta."""
        return self.weight, self.bias, self.momentum, self.bias_momentum

    @property
    def capturable(self) -> bool:
        """See OutputLayer."""
        return self.options.backend == "triton"

    def trained_parameters(self) -> int:
        """Weights and biases."""
        return self.weight.numel() + self.bias.numel()


def _fill(rows: Tensor, values: Tensor) -> None:
    rows.copy_(round_to(values, rows.dtype, "nearest", None))
