"""Random output layers for benchmarks and checks of kernels: shapes, and tensors of a shape."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels import reference
from haste.kernels.rounding import FP8, FP8_SCALE
from haste.kernels.state import LayerState, Positives
from haste.layers.connectivity import sample_indices

GATE_LABELS = 4096
"""approximate labels of the problem on which a kernel is checked before it is timed"""
GATE_HEAD = 512
BLOCK_SIZE = 16
"""contiguous features of a block of the block-sparse layer"""
INDEX_POOL = 16_384
"""different index sets; of more groups, several have the same, each in its own row of memory"""


@dataclass(frozen=True)
class Shape:
    """One output layer: a sparse tail and the dense head beside it."""

    name: str
    batch: int
    features: int
    """H: that the tail's labels choose from"""
    labels: int
    """L: of the tail"""
    fan_in: int
    group_size: int
    head: int = 0
    """labels of the head"""
    positives: int = 5
    """per document"""
    momentum: float = 0.0
    """with which the data set is trained"""
    encoder: int = 768
    """features of the encoder, which a dense layer reads; 768 for BERT-base"""

    @property
    def total(self) -> int:
        """Labels of head and tail."""
        return self.head + self.labels

    def small(self) -> Shape:
        """The shape for checking a kernel: with few labels and otherwise the same.

        Triton specializes kernels on whether 16 divides an argument, so that stays the same for the
        numbers of labels and groups: the binary that is checked is the one that is timed.
        """
        even = self.labels % (16 * self.group_size) == 0
        labels = GATE_LABELS if even else GATE_LABELS + 32 + self.labels % 16
        return replace(
            self,
            labels=min(self.labels, labels),
            head=min(self.head, GATE_HEAD + self.head % 16),
        )


_AMAZON_3M = Shape("amazon3m", 128, 768, 2_756_032, 128, 64, 56_249, 36, 0.9)

SHAPES = (
    Shape("amazon670k", 64, 384, 603_072, 64, 16, 67_019, 5, 0.9),
    Shape("amazontitles670k", 256, 384, 603_072, 128, 16, 67_019),
    _AMAZON_3M,
    replace(_AMAZON_3M, name="amazon3m-g32", group_size=32),
    Shape("lfpaper2keywords", 128, 384, 8_192_640, 64, 32, 431_207, 9),
)
"""the tails of the paper's data sets with the released hyper-parameters; Amazon-3M also with G=32, the
largest group size that the released kernels run there"""

SWEEP = Shape("sweep", 128, 768, 524_288, 64, 32)
"""the shape of which fan-in, group size and batch are varied"""
SWEEP_BATCHES = (16, 32, 64, 256, 512)
SWEEP_FAN_INS = (16, 32, 128, 256)
SWEEP_GROUP_SIZES = (16, 64, 128)


def sweep_shapes() -> list[Shape]:
    """`SWEEP`, and the shapes that differ from it in one size."""
    return [
        SWEEP,
        *(replace(SWEEP, name=f"sweep-fan-in-{n}", fan_in=n) for n in SWEEP_FAN_INS),
        *(replace(SWEEP, name=f"sweep-batch-{n}", batch=n) for n in SWEEP_BATCHES),
        *(replace(SWEEP, name=f"sweep-group-size-{n}", group_size=n) for n in SWEEP_GROUP_SIZES),
    ]


@dataclass(frozen=True, kw_only=True)
class Part(LayerState):
    """Labels that read the same columns of the features with the same pattern, and their state."""

    pattern: str
    """dense, group_fan_in, fixed_fan_in or block_sparse"""
    columns: slice
    """of the encoder's features"""
    index: Tensor | None = None
    """int32 [K, F], of a block-sparse part [K, F / BLOCK_SIZE]; None of a dense part"""
    group_size: int = 1
    first: int = 0
    """label of the output layer that is row 0 of this part"""

    @property
    def n_features(self) -> int:
        """H: features that its labels choose from."""
        return self.columns.stop - self.columns.start

    @property
    def sparse_index(self) -> Tensor:
        """`index` of a part that is not dense; raises KernelError for one that is."""
        if self.index is None:
            raise KernelError(f"index: a {self.pattern} part reads all features and has none.")
        return self.index

    @property
    def block_size(self) -> int:
        """Features that an index stands for."""
        return BLOCK_SIZE if self.pattern == "block_sparse" else 1

    def feature_index(self) -> tuple[Tensor, int]:
        """int32 [K, F], the features that each group reads, and the labels per group."""
        if self.index is None:
            features = torch.arange(self.n_features, dtype=torch.int32, device=self.weight.device)
            return features[None], len(self.weight)
        if self.block_size > 1:
            index = reference.block_index(self.index, self.block_size)
            return index, self.group_size
        return self.index, self.group_size

    def state(self) -> dict[str, Tensor]:
        """The tensors that a step updates."""
        values = {member.name: getattr(self, member.name) for member in fields(LayerState)}
        return {name: value for name, value in values.items() if value is not None}

    def copy(self) -> Part:
        """The part with a copy of its state."""
        copies: dict[str, Any] = {name: value.clone() for name, value in self.state().items()}
        return replace(self, **copies)


class Problem:
    """Inputs of one shape on one device, in bf16 except for fp8 layers, made on first use."""

    def __init__(
        self, shape: Shape, device: torch.device, lr: float = 1e-3, weight_decay: float = 0.0
    ) -> None:
        """`lr`: of the steps; small, so that steps can be repeated."""
        self.shape = shape
        self.device = device
        self.lr = lr
        self.weight_decay = weight_decay
        self.random = torch.Generator(device).manual_seed(0)
        self._parts: dict[str, Part] = {}
        self._columns: dict[tuple[int, int], Tensor] = {}

    @cached_property
    def features(self) -> Tensor:
        """bf16 [B, `shape.encoder`]."""
        return self._normal(self.shape.batch, self.shape.encoder)

    def columns(self, chosen: slice) -> Tensor:
        """Contiguous columns of the features, bf16 [B, H]."""
        key = (chosen.start, chosen.stop)
        if key not in self._columns:
            self._columns[key] = self.features[:, chosen].contiguous()
        return self._columns[key]

    @cached_property
    def dz(self) -> Tensor:
        """bf16 [B, L]: dz, the gradient of the tail's logits."""
        return self._normal(self.shape.batch, self.shape.labels)

    @cached_property
    def positives(self) -> Positives[Tensor]:
        """Positives of head and tail, frequent labels first: label r has probability ~ r^(-1/2)."""
        shape = self.shape
        size = (shape.batch * shape.positives,)
        uniform = torch.rand(size, generator=self.random, device=self.device, dtype=torch.float64)
        label = (uniform.square() * shape.total).long().clamp_(max=shape.total - 1)
        # labels of the tail are ordered by group, not by frequency
        scattered = (label - shape.head) * 7919 % shape.labels + shape.head
        label = torch.where(label < shape.head, label, scattered)
        doc = torch.arange(size[0], device=self.device) // shape.positives
        key = torch.unique(label * shape.batch + doc)
        return Positives((key // shape.batch).int(), (key % shape.batch).int())

    def positives_of(self, part: Part) -> Positives[Tensor]:
        """The positives of a part, with labels counted from its first."""
        label = self.positives.label_row - part.first
        inside = (label >= 0) & (label < len(part.weight))
        return Positives(label[inside].contiguous(), self.positives.doc[inside].contiguous())

    def part(self, name: str) -> Part:
        """The part of layer `name`: the labels of the tail, and for dense768 those of the head, too."""
        if name not in self._parts:
            self._parts[name] = self._make(name)
        return self._parts[name]

    def with_momentum(self, part: Part) -> Part:
        """The part with random momenta."""
        return replace(
            part,
            momentum=self._normal(*part.weight.shape),
            bias_momentum=self._normal(*part.bias.shape),
        )

    def _make(self, name: str) -> Part:
        shape = self.shape
        pattern = name.removesuffix("_fp8")
        n_features, fan_in = shape.features, shape.fan_in
        labels, first, group_size, index = shape.labels, shape.head, 1, None
        if pattern == "bottleneck":
            pattern, n_features = "dense", fan_in
        elif pattern == "dense":
            fan_in = n_features
        elif pattern == "dense768":
            pattern, n_features, fan_in = "dense", shape.encoder, shape.encoder
            labels, first = shape.total, 0
        else:
            group_size = 1 if pattern == "fixed_fan_in" else shape.group_size
            block_size = BLOCK_SIZE if pattern == "block_sparse" else 1
            groups = -(-labels // group_size)
            index = self._index(groups, fan_in // block_size, n_features // block_size)
        weight = torch.empty(labels, fan_in, dtype=torch.bfloat16, device=self.device)
        weight.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=self.random)
        if name.endswith("_fp8"):
            weight = weight.div_(FP8_SCALE).to(FP8)
        return Part(
            weight, self._normal(labels), pattern=pattern, columns=slice(0, n_features), index=index,
            group_size=group_size, first=first,
        )  # fmt: skip

    def _index(self, groups: int, size: int, n: int) -> Tensor:
        pool = sample_indices(min(groups, INDEX_POOL), size, n, self.random)
        if groups <= INDEX_POOL:
            return pool
        chosen = torch.randint(INDEX_POOL, (groups,), generator=self.random, device=self.device)
        return pool[chosen]

    def _normal(self, *size: int) -> Tensor:
        return torch.empty(size, dtype=torch.bfloat16, device=self.device).normal_(
            generator=self.random
        )
