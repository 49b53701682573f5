"""The cases that are checked and timed: products and steps of a layer on a problem, and their references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from haste.bench import plain_cuda, released_cuda
from haste.bench.problems import BLOCK_SIZE, Part, Problem
from haste.kernels import dense_fused_step, group_fused_step, group_linear, reference
from haste.kernels.rounding import dequantize, round_to
from haste.kernels.state import LayerState, Positives, Sgd, StepContext
from haste.kernels.triton import fixed
from haste.kernels.triton import group_linear as grouped
from haste.layers.base import LayerOptions
from haste.layers.dense import Dense
from haste.layers.head_tail import HeadTail
from haste.layers.sparse import Sparse

TIMED_PRODUCTS = {
    "forward": ("out",),
    "dx": ("dx",),
    "dw": ("dw",),
    "backward": ("dx", "dw"),
}
"""direction of a product -> names of its results"""
AUTOGRAD = ("autograd", "autograd_deterministic")
"""directions that are checked and not timed: the differentiable function, with a bias"""
PRODUCTS = {
    **TIMED_PRODUCTS,
    **dict.fromkeys(AUTOGRAD, ("out", "dx", "dw", "db")),
}

RELEASED_CUDA = "released_cuda"
PLAIN_CUDA = {"plain_cuda": False, "plain_cuda_transposed": True}
"""layer -> whether its kernels read features [H, B]"""
WHAT = {
    "group_fan_in": "group-shared tail",
    "fixed_fan_in": "tail with an index set for each label",
    "block_sparse": f"tail that reads runs of {BLOCK_SIZE} features",
    "bottleneck": "dense product with as many features as the fan-in",
    "dense": "dense product with the tail's features",
    "dense768": "dense layer over all of the encoder's features",
    "haste": "dense head and group-shared tail",
    "naive_dense": "dense layer over all of the encoder's features by autograd, BCEWithLogits, SGD",
    RELEASED_CUDA: "the released CUDA extension",
    "plain_cuda": "fixed fan-in by a plain CUDA kernel (ecml23-sparse), fp32",
    "plain_cuda_transposed": "the same by its kernels for transposed features",
}
"""layer, without the suffix of its precision -> description"""

Results = dict[str, Tensor]
Step = Callable[[], tuple[Tensor, Tensor]]
"""one step: loss and dX"""


@dataclass(frozen=True)
class Case:
    """One layer and direction on one problem."""

    run: Callable[[], Results]
    answers: Callable[[], tuple[Results, Results]]
    """what `run` should return, in fp64 and in bf16; to be called before `run`, which changes the state"""
    bytes: int
    """that must be read and written"""
    state_bytes: int
    """of weights, biases, momenta and indices"""
    labels: int
    features: int
    """H: that labels choose from"""
    fan_in: int
    dtype: torch.dtype
    """of the weights"""
    fused: Part | None = None
    """the part of a fused step with a single one, which is rounded stochastically"""
    captured: bool = True
    """whether a CUDA graph holds all of it: not what is launched on the default stream, whatever the current one"""


def build(problem: Problem, layer: str, direction: str) -> Case:
    """The case of a layer and direction on a problem: one of `PRODUCTS`, step, or step_momentum."""
    if direction in PRODUCTS:
        return _product(problem, layer, direction)
    momentum = problem.shape.momentum if direction == "step_momentum" else 0.0
    return _step(problem, layer, momentum)


def fused_step(
    part: Part, features: Tensor, positives: Positives[Tensor], lr: float, sgd: Sgd
) -> tuple[Tensor, Tensor]:
    """Loss and dX fp32 [B, H] of a fused step, which updates the part's state."""
    context = StepContext(lr, 1, 2)
    if part.pattern == "dense":
        return dense_fused_step(features, part, positives, context, sgd, backend="triton")
    return group_fused_step(
        features, part, part.index, positives, context, sgd, group_size=part.group_size,
        block_size=part.block_size, unique_indices=True, backend="triton",
    )  # fmt: skip


def _product(problem: Problem, layer: str, direction: str) -> Case:
    pattern = "group_fan_in" if layer == RELEASED_CUDA else layer
    part = problem.part("fixed_fan_in" if layer in PLAIN_CUDA else pattern)
    if layer == "dense768":
        # products are those of the tail: its step has the head's labels too
        first = problem.shape.head
        part = replace(part, weight=part.weight[first:], bias=part.bias[first:], first=first)
    x, dz, moved = problem.columns(part.columns), problem.dz, part
    if direction in AUTOGRAD:

        def run() -> Results:
            return _by_autograd(part, x, dz, deterministic=direction == "autograd_deterministic")
    else:
        if layer in PLAIN_CUDA:
            moved = _in_fp32(part)
            made = plain_cuda.products(part, x, dz, transposed=PLAIN_CUDA[layer])
        else:
            made = (released_cuda.products if layer == RELEASED_CUDA else _kernels)(part, x, dz)
        calls = [(name, made[name]) for name in PRODUCTS[direction]]

        def run() -> Results:
            return {name: call() for name, call in calls}

    def answers() -> tuple[Results, Results]:
        exact, plain = (
            _product_answers(part, x, dz, direction, dtype)
            for dtype in (torch.float64, torch.bfloat16)
        )
        return exact, plain

    return Case(
        run,
        answers,
        _product_bytes(moved, problem.shape.batch, direction),
        _state_bytes(moved),
        len(part.weight),
        _chosen_from(problem, layer, part),
        part.weight.shape[1],
        moved.weight.dtype,
        captured=layer != RELEASED_CUDA,
    )


def _step(problem: Problem, layer: str, momentum: float) -> Case:
    fused = None
    if layer in ("haste", RELEASED_CUDA):
        parts, step = _head_and_tail(problem, momentum)
        if layer == RELEASED_CUDA:
            step = _released(problem, parts, released_cuda.group_product)
    elif layer == "naive_dense":
        parts = (problem.part("dense768"),)
        step = _naive_dense(problem, parts[0])
    else:
        fused = problem.part(layer)
        if momentum:
            fused = problem.with_momentum(fused)
        parts = (fused,)
        step = _fused(problem, fused, momentum)

    def answers() -> tuple[Results, Results]:
        exact, plain = _step_answers(problem, parts, momentum)
        if layer == RELEASED_CUDA:
            # its elementwise passes round more often than necessary; only its kernels are checked
            copies = tuple(part.copy() for part in parts)
            plain = _step_results(copies, _released(problem, copies, reference.linear))
        if len(parts) == 1:
            for results in (exact, plain):
                results["dx"] = results["dx"][:, parts[0].columns]
        return exact, plain

    tail = parts[-1]
    return Case(
        lambda: _step_results(parts, step),
        answers,
        _step_bytes(parts, problem.shape.batch),
        sum(_state_bytes(part) for part in parts),
        sum(len(part.weight) for part in parts),
        _chosen_from(problem, layer, tail),
        tail.weight.shape[1],
        tail.weight.dtype,
        fused,
        captured=layer != RELEASED_CUDA,
    )


def _chosen_from(problem: Problem, layer: str, part: Part) -> int:
    """The column features of a row; for a bottleneck, those of the layers that it is compared with."""
    return problem.shape.features if layer == "bottleneck" else part.n_features


# implementations


def _kernels(part: Part, x: Tensor, dz: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The products of a part, without bias: out [B, L] for x [B, H]; dx [B, H] and dw [L, F] for dz [B, L]."""
    weight, n_features, dtype = part.weight, part.n_features, part.weight.dtype
    if part.pattern == "dense":
        return {
            "out": lambda: torch.mm(x, weight.t()),
            "dx": lambda: torch.mm(dz, weight),
            "dw": lambda: torch.mm(dz.t(), x),
        }
    index = part.sparse_index
    if part.pattern == "fixed_fan_in":
        return {
            "out": lambda: fixed.forward(x, weight, index, None, unique=True),
            "dx": lambda: fixed.backward_dx(dz, weight, index, n_features, unique=True),
            "dw": lambda: fixed.backward_dw(x, dz, index, dtype=dtype),
        }
    groups: dict[str, Any] = {"group_size": part.group_size, "block_size": part.block_size}
    return {
        "out": lambda: grouped.forward(x, weight, index, None, **groups),
        "dx": lambda: grouped.backward_dx(dz, weight, index, n_features, unique=True, **groups),
        "dw": lambda: grouped.backward_dw(x, dz, index, weight.shape[1], dtype=dtype, **groups),
    }


def _by_autograd(part: Part, x: Tensor, dz: Tensor, *, deterministic: bool) -> Results:
    leaves = [value.detach().requires_grad_() for value in (x, part.weight, part.bias)]
    out = group_linear(
        *leaves[:2], part.index, leaves[2], group_size=part.group_size, block_size=part.block_size,
        unique_indices=True, deterministic=deterministic, backend="triton",
    )  # fmt: skip
    gradients = torch.autograd.grad(out, leaves, dz)
    return dict(zip(PRODUCTS["autograd"], (out.detach(), *gradients), strict=True))


def _fused(problem: Problem, part: Part, momentum: float) -> Step:
    x, positives = problem.columns(part.columns), problem.positives_of(part)
    sgd = Sgd(momentum, problem.weight_decay)
    return lambda: fused_step(part, x, positives, problem.lr, sgd)


def _head_and_tail(problem: Problem, momentum: float) -> tuple[tuple[Part, ...], Step]:
    """Head and tail as in training: a tail of 384 features reads one half of the encoder's, the head the other."""
    shape, width = problem.shape, problem.shape.encoder
    options = LayerOptions(
        dtype=torch.bfloat16,
        momentum=momentum,
        weight_decay=problem.weight_decay,
        backend="triton",
    )
    tail_columns = slice(0, shape.features)
    head_columns = slice(shape.features if shape.features < width else 0, width)
    size = head_columns.stop - head_columns.start
    head = Dense(size, shape.head, options, problem.random)
    tail = Sparse(
        shape.features, shape.labels, shape.fan_in, options, problem.random,
        group_size=shape.group_size,
    )  # fmt: skip
    for velocity in (head.momentum, head.bias_momentum, tail.momentum, tail.bias_momentum):
        if velocity is not None:
            velocity.normal_(generator=problem.random)
    layer = HeadTail(head, tail, width, head_columns, tail_columns)

    def step() -> tuple[Tensor, Tensor]:
        result = layer.step(problem.features, problem.positives, StepContext(problem.lr, 1, 2))
        return result.loss, result.dx

    parts = (
        Part(**vars(head.state), pattern="dense", columns=head_columns),
        Part(
            **vars(tail.state), pattern="group_fan_in", columns=tail_columns, index=tail.indices,
            group_size=shape.group_size, first=shape.head,
        ),
    )  # fmt: skip
    return parts, step


def _released(problem: Problem, parts: tuple[Part, ...], product: Callable[..., Tensor]) -> Step:
    return released_cuda.step(parts, problem.features, problem.positives, problem.lr, product)


def _naive_dense(problem: Problem, part: Part) -> Step:
    """The dense layer in plain torch: all logits, a dense target, autograd, SGD."""
    # the parameters share the memory of the part: a copy of the weights would not always fit
    weight, bias = (torch.nn.Parameter(value) for value in (part.weight, part.bias))
    x, positives = problem.features, problem.positives
    optimizer = torch.optim.SGD([weight, bias], lr=problem.lr)
    loss_of = torch.nn.BCEWithLogitsLoss(reduction="sum")

    def step() -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        target = torch.zeros(len(x), len(weight), dtype=x.dtype, device=x.device)
        target[positives.doc.long(), positives.label_row.long()] = 1
        loss = loss_of(torch.nn.functional.linear(leaf, weight, bias), target)
        return released_cuda.backward_and_update(loss, leaf, optimizer)

    return step


def _step_results(parts: tuple[Part, ...], step: Step) -> Results:
    """Take a step: its loss and dX, and the state after it, named by the number of the part."""
    loss, dx = step()
    state = {
        f"{name} {number}": value
        for number, part in enumerate(parts)
        for name, value in part.state().items()
    }
    return {"loss": loss, "dx": dx, **state}


# references


def _product_answers(
    part: Part, x: Tensor, dz: Tensor, direction: str, dtype: torch.dtype
) -> Results:
    index, group_size = part.feature_index()
    x, weight, dz = x.to(dtype), dequantize(part.weight).to(dtype), dz.to(dtype)
    dense = weight
    if part.index is not None:
        dense = reference.dense_weight(weight, index, part.n_features, group_size)

    def dw() -> Tensor:
        dense_dw = dz.T @ x
        if part.index is None:
            return dense_dw
        rows = torch.arange(len(weight), device=weight.device) // group_size
        return dense_dw.gather(1, index.long()[rows])

    bias = part.bias.to(dtype) if direction in AUTOGRAD else 0
    answer = {
        "out": lambda: x @ dense.T + bias,
        "dx": lambda: dz @ dense,
        "dw": dw,
        "db": lambda: dz.sum(0),
    }
    return {name: answer[name]() for name in PRODUCTS[direction]}


def _step_answers(
    problem: Problem, parts: tuple[Part, ...], momentum: float
) -> tuple[Results, Results]:
    """In fp64 and in bf16; `dx` has the columns of the encoder's features.

    The bf16 state is the fp64 one after stochastic rounding, the smallest error that a kernel with
    stochastic rounding can have.
    """
    exact, plain = (
        _reference_steps(problem, parts, momentum, dtype)
        for dtype in (torch.float64, torch.bfloat16)
    )
    for number, part in enumerate(parts):
        for name, value in part.state().items():
            key = f"{name} {number}"
            rounded = round_to(exact[key].float(), value.dtype, "stochastic", problem.random)
            plain[key] = dequantize(rounded)
    return exact, plain


def _reference_steps(
    problem: Problem, parts: tuple[Part, ...], momentum: float, dtype: torch.dtype
) -> Results:
    total = torch.zeros_like(problem.features, dtype=dtype)
    results = {
        "loss": torch.zeros((), dtype=dtype, device=problem.device),
        "dx": total,
    }
    for number, part in enumerate(parts):
        index, group_size = part.feature_index()
        state: dict[str, Any] = {
            name: dequantize(value).to(dtype) for name, value in part.state().items()
        }
        answer = reference.fused_step(
            problem.columns(part.columns).to(dtype), LayerState(**state), index, problem.positives_of(part),
            problem.lr, Sgd(momentum, problem.weight_decay), group_size=group_size,
        )  # fmt: skip
        new = {name: value for name, value in answer.items() if value is not None}
        results["loss"] += new["loss"]
        total[:, part.columns] += new["dx"]
        results |= {f"{name} {number}": new[name] for name in state}
    return results


# bytes that must be read and written


def _product_bytes(part: Part, batch: int, direction: str) -> int:
    """Bytes that a product must read and write: each operand and result once, dX in fp32 and the others in the
    dtype of the weights."""
    size = part.weight.element_size()
    features, labels, dx = size * part.n_features, size * len(part.weight), 4 * part.n_features
    rows = {
        "forward": (features, labels),
        "dx": (labels, dx),
        "dw": (features, labels),
        "backward": (features, labels, dx),
    }
    dense = batch * sum(rows.get(direction, ()))
    weights = _bytes(part.weight) * (2 if direction == "backward" else 1)
    return dense + weights + _index_bytes(part)


def _step_bytes(parts: tuple[Part, ...], batch: int) -> int:
    """Bytes that a step must read and write: the state twice, indices, features, dX."""
    moved = sum(batch * part.n_features * (2 + 4) + _state_bytes(part) for part in parts)
    return moved + sum(_state_bytes(part) - _index_bytes(part) for part in parts)


def _in_fp32(part: Part) -> Part:
    """A part of such sizes, for counting: without memory."""

    def wide(value: Tensor) -> Tensor:
        return torch.empty_like(value, dtype=torch.float32, device="meta")

    return replace(part, weight=wide(part.weight), bias=wide(part.bias))


def _state_bytes(part: Part) -> int:
    return sum(_bytes(value) for value in part.state().values()) + _index_bytes(part)


def _index_bytes(part: Part) -> int:
    return 0 if part.index is None else _bytes(part.index)


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
