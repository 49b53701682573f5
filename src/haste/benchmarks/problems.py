"""Random output layers of a shape, the answers in any precision, and the bytes that must move."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from haste.benchmarks.shapes import Shape
from haste.data.batches import Positives
from haste.kernels import reference
from haste.kernels.rounding import FP8, FP8_SCALE, round_to, widen
from haste.sparsity.connectivity import draw

RUN = 16
"""features of a run of the block-sparse layer"""
POOL = 16_384
"""index sets that are drawn; more labels share them, each with a row of its own in memory"""


@dataclass(frozen=True)
class Part:
    """Labels that read the same columns of the features in the same way."""

    pattern: str
    """dense, group_fan_in, fixed_fan_in or block_sparse"""
    columns: slice
    """of the encoder's features"""
    weight: Tensor
    bias: Tensor
    index: Tensor | None = None
    momentum: Tensor | None = None
    bias_momentum: Tensor | None = None
    group_size: int = 1
    first: int = 0
    """label of the output layer that is row 0 here"""

    @property
    def n_features(self) -> int:
        """Features that its labels choose from."""
        return self.columns.stop - self.columns.start

    @property
    def run(self) -> int:
        """Features of a run."""
        return RUN if self.pattern == "block_sparse" else 1

    def features_of(self, columns: int) -> tuple[Tensor, int]:
        """int [K, F], which of `columns` features each group reads, and the labels of a group."""
        if self.index is None:
            every = torch.arange(columns, dtype=torch.int32, device=self.weight.device)
            return every[None], len(self.weight)
        if self.run > 1:
            return reference.run_index(self.index * self.run, self.run), self.group_size
        return self.index, self.group_size

    def state(self) -> dict[str, Tensor]:
        """What a step changes."""
        names = ("weight", "bias", "momentum", "bias_momentum")
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


class Problem:
    """Inputs of one shape on one device, bf16 unless a layer says otherwise, made when first used."""

    def __init__(self, shape: Shape, device: torch.device, lr: float = 1e-3) -> None:
        """`lr`: of the steps; small, so that steps may be repeated."""
        self.shape = shape
        self.device = device
        self.lr = lr
        self.random = torch.Generator(device).manual_seed(0)
        self._parts: dict[str, Part] = {}
        self._columns: dict[tuple[int, int], Tensor] = {}

    @cached_property
    def features(self) -> Tensor:
        """[B, `shape.encoder`]."""
        return self._normal(self.shape.batch, self.shape.encoder)

    def columns(self, chosen: slice) -> Tensor:
        """Contiguous columns of the features."""
        key = (chosen.start, chosen.stop)
        if key not in self._columns:
            self._columns[key] = self.features[:, chosen].contiguous()
        return self._columns[key]

    @cached_property
    def grad(self) -> Tensor:
        """[B, L]: the gradient of the tail's logits."""
        return self._normal(self.shape.batch, self.shape.labels)

    @cached_property
    def positives(self) -> Positives:
        """Of head and tail; frequent labels first: label r is drawn as often as r^(-1/2)."""
        shape = self.shape
        size = (shape.batch * shape.positives,)
        uniform = torch.rand(size, generator=self.random, device=self.device, dtype=torch.float64)
        label = (uniform.square() * shape.total).long().clamp_(max=shape.total - 1)
        # the tail is in the order of groups, not of frequency
        scattered = (label - shape.head) * 7919 % shape.labels + shape.head
        label = torch.where(label < shape.head, label, scattered)
        row = torch.arange(size[0], device=self.device) // shape.positives
        key = torch.unique(label * shape.batch + row)
        return Positives((key // shape.batch).int(), (key % shape.batch).int())

    def positives_of(self, part: Part) -> Positives:
        """Those of a part's labels, numbered from its first."""
        label = self.positives.label - part.first
        own = (label >= 0) & (label < len(part.weight))
        return Positives(label[own].contiguous(), self.positives.row[own].contiguous())

    def part(self, name: str) -> Part:
        """The part of layer `name`: the tail's labels, but for dense768 the head's too."""
        if name not in self._parts:
            self._parts[name] = self._make(name)
        return self._parts[name]

    def _make(self, name: str) -> Part:
        shape = self.shape
        dtype = FP8 if name.endswith("_fp8") else torch.bfloat16
        name = name.removesuffix("_fp8")
        labels, first = shape.labels, shape.head
        own = slice(0, shape.features)
        if name == "bottleneck":
            return self._part("dense", slice(0, shape.fan_in), labels, shape.fan_in, dtype, first)
        if name == "dense":
            return self._part(name, own, labels, shape.features, dtype, first)
        if name == "dense768":
            every = slice(0, shape.encoder)
            return self._part("dense", every, shape.total, shape.encoder, dtype, 0)
        groups = -(-labels // shape.group_size)
        index = {
            "group_fan_in": lambda: self._index(groups, shape.fan_in, shape.features),
            "fixed_fan_in": lambda: self._index(labels, shape.fan_in, shape.features),
            "block_sparse": lambda: self._index(groups, shape.fan_in // RUN, shape.features // RUN),
        }[name]()
        size = 1 if name == "fixed_fan_in" else shape.group_size
        return self._part(name, own, labels, shape.fan_in, dtype, first, index, size)

    def _part(
        self,
        pattern: str,
        columns: slice,
        labels: int,
        row_size: int,
        dtype: torch.dtype,
        first: int,
        index: Tensor | None = None,
        group_size: int = 1,
    ) -> Part:
        bound = row_size**-0.5
        weight = torch.empty(labels, row_size, dtype=torch.bfloat16, device=self.device)
        weight.uniform_(-bound, bound, generator=self.random)
        if dtype == FP8:
            weight = weight.div_(FP8_SCALE).to(FP8)
        bias = torch.zeros(labels, dtype=torch.bfloat16, device=self.device)
        return Part(pattern, columns, weight, bias, index, group_size=group_size, first=first)

    def _index(self, rows: int, slots: int, n: int) -> Tensor:
        pool = draw(min(rows, POOL), slots, n, self.random)
        if rows <= POOL:
            return pool
        chosen = torch.randint(POOL, (rows,), generator=self.random, device=self.device)
        return pool[chosen]

    def with_momentum(self, part: Part) -> Part:
        """The part with velocities that are not 0."""
        return replace(
            part,
            momentum=self._normal(*part.weight.shape),
            bias_momentum=self._normal(*part.bias.shape),
        )

    def _normal(self, *size: int) -> Tensor:
        return torch.empty(size, dtype=torch.bfloat16, device=self.device).normal_(
            generator=self.random
        )


Answers = dict[str, Tensor]


def product_answers(
    part: Part, features: Tensor, grad: Tensor, direction: str
) -> tuple[Answers, Answers]:
    """What a product should give: naively in fp64, and as plain torch has it in bf16."""
    exact, plain = (
        _product_answers(part, features, grad, direction, dtype)
        for dtype in (torch.float64, torch.bfloat16)
    )
    return exact, plain


def step_answers(
    problem: Problem, parts: tuple[Part, ...], momentum: float
) -> tuple[Answers, Answers]:
    """What a step should give: naively in fp64, and as plain torch has it in bf16.

    The state that bf16 stands for is the exact one after stochastic rounding: nothing that rounds so
    can be expected to come nearer.
    """
    exact, plain = (
        _step_answers(problem, parts, momentum, dtype) for dtype in (torch.float64, torch.bfloat16)
    )
    for number, part in enumerate(parts):
        for name, value in part.state().items():
            key = f"{name} {number}"
            rounded = round_to(exact[key].float(), value.dtype, "stochastic", problem.random)
            plain[key] = widen(rounded)
    return exact, plain


def _product_answers(
    part: Part, features: Tensor, grad: Tensor, direction: str, dtype: torch.dtype
) -> Answers:
    index, group_size = part.features_of(features.shape[1])
    x, w, dz = features.to(dtype), widen(part.weight).to(dtype), grad.to(dtype)
    spread = w if part.index is None else reference.dense_weight(w, index, x.shape[1], group_size)
    found = {}
    if direction == "forward":
        found["out"] = x @ spread.T
    if direction in ("grad_features", "backward"):
        found["grad_features"] = dz @ spread
    if direction in ("grad_weight", "backward"):
        whole = dz.T @ x
        if part.index is not None:
            rows = torch.arange(len(w), device=w.device) // group_size
            whole = whole.gather(1, index.long()[rows])
        found["grad_weight"] = whole
    return found


def _step_answers(
    problem: Problem, parts: tuple[Part, ...], momentum: float, dtype: torch.dtype
) -> Answers:
    """`grad_features` has the columns of the encoder's features; state is named by the part's number."""
    total = torch.zeros_like(problem.features, dtype=dtype)
    found = {"loss": torch.zeros((), dtype=dtype, device=problem.device), "grad_features": total}
    for number, part in enumerate(parts):
        index, group_size = part.features_of(part.n_features)
        state = {name: widen(value).to(dtype) for name, value in part.state().items()}
        pairs = problem.positives_of(part)
        answer = reference.fused_step(
            problem.columns(part.columns).to(dtype),
            state["weight"],
            index,
            state["bias"],
            state.get("momentum"),
            state.get("bias_momentum"),
            pairs.label,
            pairs.row,
            group_size=group_size,
            lr=problem.lr,
            momentum_factor=momentum,
            weight_decay=0.0,
        )
        found["loss"] += answer["loss"]
        total[:, part.columns] += answer["grad_features"]
        found |= {f"{name} {number}": answer[name] for name in state}
    return found


def product_bytes(part: Part, batch: int, direction: str) -> int:
    """Bytes that a product must read and write: each operand and result once."""
    rows = {
        "forward": (part.n_features, len(part.weight)),
        "grad_features": (len(part.weight), 2 * part.n_features),
        "grad_weight": (part.n_features, len(part.weight)),
        "backward": (part.n_features, len(part.weight), 2 * part.n_features),
    }[direction]
    # bf16; the features' gradient, fp32, counts twice
    dense = 2 * batch * sum(rows)
    weights = _bytes(part.weight) * (2 if direction == "backward" else 1)
    return dense + weights + _index_bytes(part)


def step_bytes(parts: tuple[Part, ...], batch: int) -> int:
    """Bytes that a step must read and write: the state twice, indices, features, their gradient."""
    moved = sum(batch * part.n_features * (2 + 4) + state_bytes(part) for part in parts)
    return moved + sum(state_bytes(part) - _index_bytes(part) for part in parts)


def state_bytes(part: Part) -> int:
    """Bytes of weights, biases, momenta and indices."""
    return sum(_bytes(value) for value in part.state().values()) + _index_bytes(part)


def _index_bytes(part: Part) -> int:
    return 0 if part.index is None else _bytes(part.index)


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
