"""The interface of output layers: a training step of their own, logits, top k and rewiring."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from haste.distributed import ALONE, Ranks
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
    check_sgd,
)
from haste.kernels.loss import LOSSES
from haste.kernels.rounding import FP8, round_to
from haste.kernels.state import LayerState, Positives, RowRange, Sgd, StepContext, tiles
from haste.kernels.topk import topk

_BLOCK = 1 << 26
"""weights that are drawn together"""
LABELS_PER_CHUNK = 65536
"""whose logits are held at a time where the best are looked for"""


def unique_positives(rows: Tensor, doc: Tensor, batch: int) -> Positives[Tensor]:
    """Pairs int [P] in the order of positives, each once; documents lie in `batch`."""
    pairs = torch.unique(rows.long() * batch + doc.long())
    return Positives((pairs // batch).to(torch.int32), (pairs % batch).to(torch.int32))


Examples = tuple[Tensor, Positives[Tensor]]
"""features [B, H] of a batch and its positives"""


@dataclass(frozen=True)
class StepResult:
    """Loss (fp32 scalar, summed over batch and labels) and dX, the gradient of the features, fp32 [B, H]."""

    loss: Tensor
    dx: Tensor


@dataclass(frozen=True)
class RewireStats:
    """Number of indices of the pattern, and of those that moved."""

    indices: int = 0
    moved: int = 0

    def __add__(self, other: RewireStats) -> RewireStats:
        return RewireStats(self.indices + other.indices, self.moved + other.moved)


@dataclass(frozen=True)
class LayerOptions:
    """Options of all layers: dtypes, constants of the optimiser, how connections move."""

    dtype: torch.dtype = torch.float32
    loss_dtype: torch.dtype = torch.float32
    loss: str = "bce"
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    rounding: str = "stochastic"
    growth: str = "random"
    scope: str = "global"
    fraction: float = 0.2
    threshold: float = 0.0
    reset_momentum: bool = True
    with_replacement: bool = False
    backend: str = "torch"
    """torch or triton"""
    deterministic: bool = False
    """sums in a fixed order"""

    def __post_init__(self) -> None:
        check_one_of("dtype", self.dtype, STORED)
        check_one_of("loss_dtype", self.loss_dtype, LOSS_DTYPES)
        check_one_of("loss", self.loss, tuple(LOSSES))
        check_one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        check_one_of("growth", self.growth, ("none", "random", "gradient"))
        check_one_of("scope", self.scope, ("global", "group"))
        check_one_of("backend", self.backend, BACKENDS)
        check_number("fraction", self.fraction, 0, 1)
        check_sgd(self.sgd)
        check_number("threshold", self.threshold, 0, sys.float_info.max)

    @property
    def sgd(self) -> Sgd:
        """The constants of the update."""
        adamw = self.optimizer == "adamw"
        return Sgd(self.momentum, self.weight_decay, self.rounding, adamw)


class OutputLayer(nn.Module, ABC):
    """Scores L labels from features [B, H] and updates its own weights.

    Rows are the layer's internal order of labels; `topk` returns rows, which `haste.labels.order` maps to
    label ids. Weights, biases and momenta are buffers, not parameters, so that no other optimiser updates
    them. A layer made of layers has those as its child modules, and no other children.
    """

    n_labels: int
    n_features: int

    @abstractmethod
    def step(
        self, features: Tensor, positives: Positives[Tensor], context: StepContext
    ) -> StepResult:
        """One SGD step of sum-BCE on features [B, H] (without autograd graph), updating the layer in place.

        `positives`: sorted pairs (row of this layer, document of the batch); pairs of other rows are
        ignored. Random numbers, of rounding and dropout, are a function of the context's (seed, step),
        which may be tensors for the triton backend only.
        """

    @abstractmethod
    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """fp32 [B, n]: the logits of a slice of n rows, for features [B, H]."""

    def topk(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores fp32 [B, k] and rows int64 [B, k], best first, without a B x L tensor."""
        return topk(lambda rows: self.logits(features, rows), self.n_labels, k, LABELS_PER_CHUNK)

    def rewire(self, random: torch.Generator, examples: Examples | None = None) -> RewireStats:  # noqa: ARG002
        """Move the connections of lowest score; growth by gradient needs examples. Dense: nothing."""
        return RewireStats()

    @abstractmethod
    def add_to_bias(self, offset: float) -> None:
        """Add `offset` to the logits of all labels, rounded as biases are."""

    @property
    def capturable(self) -> bool:
        """Whether a CUDA graph can capture `step`: it reads lr and step from tensors and never synchronizes."""
        return all(layer.capturable for layer in self.children())

    def trained_parameters(self) -> int:
        """Number of weights and biases that are trained."""
        layers = (layer for layer in self.children() if isinstance(layer, OutputLayer))
        return sum(layer.trained_parameters() for layer in layers)

    def check(self, features: Tensor | None, rows: slice | None = None) -> None:
        """Raise KernelError unless features are [B, H] on this layer's device, and `rows` are rows of it."""
        check_inputs("features", features, self.n_features, next(self.buffers()).device)
        if rows is not None:
            check_labels(rows, self.n_labels)

    def check_examples(self, examples: Examples | None) -> Examples:
        """`examples`, which growth by gradient needs; KernelError where they are none or do not fit."""
        if examples is None:
            raise KernelError(
                "examples: growth by gradient needs a batch; give its features and positives."
            )
        features, positives = examples
        self.check(features)
        check_positives(positives, len(features), features.device)
        return examples

    def row_ranges(self) -> dict[str, RowRange]:
        """Of the tensors of `state_dict` of which this process has only some rows: which."""
        return {
            f"{name}.{tensor}": rows
            for name, layer in self.named_children()
            if isinstance(layer, OutputLayer)
            for tensor, rows in layer.row_ranges().items()
        }

    def layer_bytes(self) -> int:
        """Bytes of weights, indices, biases and momenta."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())


class LinearRows(OutputLayer):
    """Layers with one row of weights and one bias per label: their buffers and initial values.

    One of several ranks has a part of the rows, `rows`, and only knows these; random numbers are drawn for
    the whole layer, so that its values do not depend on the number of ranks (`haste.layers.sharded`).
    """

    weight: Tensor
    bias: Tensor
    momentum: Tensor | None
    bias_momentum: Tensor | None
    squared_momentum: Tensor | None
    bias_squared_momentum: Tensor | None

    def __init__(
        self,
        n_features: int,
        n_labels: int,
        row_size: int,
        options: LayerOptions,
        random: torch.Generator | None,
        ranks: Ranks = ALONE,
        unit: int = 1,
    ) -> None:
        """`n_labels`: of the whole layer; `unit`: labels that stay together on a rank. Where `random` is None the
        buffers are on the meta device, to be replaced by those of a trained layer."""
        super().__init__()
        n_features = check_count("n_features", n_features)
        row_size = check_count("fan_in", row_size)
        self.ranks = ranks
        self.rows = ranks.split(check_count("n_labels", n_labels), unit, "output layer")
        n_labels = len(self.rows)
        device = device_of(random)
        self.n_features = n_features
        self.n_labels = n_labels
        self.options = options
        shape = (n_labels, row_size)
        self.register_buffer("weight", torch.empty(shape, dtype=options.dtype, device=device))
        # E4M3 is for weights only: biases need more digits, and momenta a wider range
        dtype = torch.bfloat16 if options.dtype == FP8 else options.dtype
        self.register_buffer("bias", torch.zeros(n_labels, dtype=dtype, device=device))
        momentum = bias_momentum = None
        if options.momentum > 0 or options.sgd.adamw:
            momentum = torch.zeros(shape, dtype=dtype, device=device)
            bias_momentum = torch.zeros_like(self.bias)
        self.register_buffer("momentum", momentum)
        self.register_buffer("bias_momentum", bias_momentum)
        squared = bias_squared = None
        if options.sgd.adamw:
            squared = torch.zeros(shape, dtype=torch.float32, device=device)
            bias_squared = torch.zeros(n_labels, dtype=torch.float32, device=device)
        self.register_buffer("squared_momentum", squared)
        self.register_buffer("bias_squared_momentum", bias_squared)

    def fill_uniform(self, fan_in: int, random: torch.Generator | None) -> None:
        """Weights U(-1/sqrt F, 1/sqrt F); nothing where `random` is None."""
        if random is None:
            return
        bound = fan_in**-0.5
        for size, inside, rows in self._blocks():
            values = torch.rand(size, generator=random, device=self.weight.device)[inside]
            _fill(self.weight[rows], values.mul_(2 * bound).sub_(bound))

    def fill_normal(self, std: float, random: torch.Generator | None) -> None:
        """Weights N(0, std); nothing where `random` is None."""
        if random is None:
            return
        for size, inside, rows in self._blocks():
            values = torch.randn(size, generator=random, device=self.weight.device)[inside]
            _fill(self.weight[rows], values.mul_(std))

    def add_to_bias(self, offset: float) -> None:
        """See OutputLayer."""
        self.bias.copy_(self.bias.float() + offset)

    def _blocks(self) -> Iterator[tuple[tuple[int, int], slice, slice]]:
        """The whole layer's weights in blocks of rows, which bound fp32 copies of them: the shape of each,
        and `RowRange.overlap` with it."""
        row_size = self.weight.shape[1]
        for block in tiles(self.rows.total, max(1, _BLOCK // row_size)):
            yield (block.stop - block.start, row_size), *self.rows.overlap(block)

    def row_range(self, name: str) -> RowRange:  # noqa: ARG002
        """Which rows there are of a tensor of `state_dict`."""
        return self.rows

    @property
    def state(self) -> LayerState:
        """The tensors that a step updates."""
        rows = None if self.rows.whole else self.rows
        return LayerState(
            self.weight, self.bias, self.momentum, self.bias_momentum, rows,
            self.squared_momentum, self.bias_squared_momentum,
        )  # fmt: skip

    @property
    def weight_momenta(self) -> list[Tensor]:
        """Those of the weights that the optimiser keeps."""
        return [
            momentum for momentum in (self.momentum, self.squared_momentum) if momentum is not None
        ]

    @property
    def capturable(self) -> bool:
        """See OutputLayer."""
        return self.options.backend == "triton"

    def trained_parameters(self) -> int:
        """Weights and biases."""
        return self.weight.numel() + self.bias.numel()


def device_of(random: torch.Generator | None) -> torch.device:
    """Where a layer is drawn: the meta device where it is not."""
    return torch.device("meta") if random is None else random.device


def _fill(rows: Tensor, values: Tensor) -> None:
    rows.copy_(round_to(values, rows.dtype, "nearest", None))
