"""What is timed: each layer's products and steps, ready to be called, with the answers they should give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from haste.benchmarks import authors
from haste.benchmarks.problems import (
    RUN,
    Answers,
    Part,
    Problem,
    product_answers,
    product_bytes,
    state_bytes,
    step_answers,
    step_bytes,
)
from haste.kernels import (
    dense_fused_step,
    fixed_fan_in_fused_step,
    group_fused_step,
    reference,
)
from haste.layers.base import LayerOptions
from haste.layers.dense import Dense
from haste.layers.group_fan_in import GroupFanIn
from haste.layers.head_tail import HeadTail

PRODUCTS = ("forward", "grad_features", "grad_weight", "backward")

WHAT = {
    "group_fan_in": "group-shared tail",
    "fixed_fan_in": "tail with an index set for each label",
    "block_sparse": f"tail that reads runs of {RUN} features",
    "bottleneck": "dense product with as many features as the fan-in",
    "dense": "dense product with the tail's features",
    "dense768": "dense layer over all of the encoder's features",
    "haste": "dense head and group-shared tail",
    "naive_dense": "dense layer over all of the encoder's features by autograd, BCEWithLogits, SGD",
    "authors": "the released CUDA extension",
}
"""of each layer, without the suffix of its precision"""


@dataclass(frozen=True)
class Case:
    """One row of the benchmark on one problem."""

    run: Callable[[], Answers]
    answers: Callable[[], tuple[Answers, Answers]]
    """what `run` should give, in fp64 and in bf16; to be asked before a run, which changes the state"""
    bytes: int
    """that must move"""
    state_bytes: int
    """of weights, biases, momenta and indices"""
    labels: int
    features: int
    """that labels choose from"""
    fan_in: int
    dtype: torch.dtype
    """of the weights"""


def build(problem: Problem, layer: str, direction: str) -> Case:
    """The case of a layer and direction on a problem: one of `PRODUCTS`, step, or step_momentum."""
    if direction in PRODUCTS:
        return _product(problem, layer, direction)
    momentum = problem.shape.momentum if direction == "step_momentum" else 0.0
    return _step(problem, layer, momentum)


def _product(problem: Problem, layer: str, direction: str) -> Case:
    part = problem.part("group_fan_in" if layer == "authors" else layer)
    if layer == "dense768":
        # products are those of the tail: its step has the head's labels too
        first = problem.shape.head
        part = replace(part, weight=part.weight[first:], bias=part.bias[first:], first=first)
    x, dz = problem.columns(part.columns), problem.grad
    if layer == "authors":
        functions = authors.products(part, x, dz)
    else:
        functions = {
            "forward": lambda: _forward(part, x),
            "grad_features": lambda: _grad_features(part, dz),
            "grad_weight": lambda: _grad_weight(part, x, dz),
        }
    if direction == "forward":

        def run() -> Answers:
            return {"out": functions["forward"]()}
    else:
        wanted = ("grad_features", "grad_weight") if direction == "backward" else (direction,)

        def run() -> Answers:
            return {name: functions[name]() for name in wanted}

    return Case(
        run,
        lambda: product_answers(part, x, dz, direction),
        product_bytes(part, problem.shape.batch, direction),
        state_bytes(part),
        len(part.weight),
        _chosen_from(problem, layer, part),
        part.weight.shape[1],
        part.weight.dtype,
    )


def _step(problem: Problem, layer: str, momentum: float) -> Case:
    if layer == "haste":
        parts, step = _haste(problem, momentum)
    elif layer == "authors":
        parts, _ = _haste(problem, momentum)
        step = _released(problem, parts, authors.group_product)
    elif layer == "naive_dense":
        parts = (problem.part("dense768"),)
        step = _by_autograd(problem, parts[0])
    else:
        part = problem.part(layer)
        if momentum:
            part = problem.with_momentum(part)
        parts = (part,)
        step = _fused(problem, part, momentum)

    def answers() -> tuple[Answers, Answers]:
        exact, plain = step_answers(problem, parts, momentum)
        if layer == "authors":
            # its elementwise passes round more often than one would: its kernels are judged, not those
            copies = tuple(replace(p, weight=p.weight.clone(), bias=p.bias.clone()) for p in parts)
            plain = _results(copies, _released(problem, copies, reference.linear))
        if len(parts) == 1:
            for each in (exact, plain):
                each["grad_features"] = each["grad_features"][:, parts[0].columns]
        return exact, plain

    tail = parts[-1]
    return Case(
        lambda: _results(parts, step),
        answers,
        step_bytes(parts, problem.shape.batch),
        sum(state_bytes(part) for part in parts),
        sum(len(part.weight) for part in parts),
        _chosen_from(problem, layer, tail),
        tail.weight.shape[1],
        tail.weight.dtype,
    )


def _results(parts: tuple[Part, ...], step: Callable[[], tuple[Tensor, Tensor]]) -> Answers:
    """Take a step: its loss and gradient, and the state that it leaves."""
    loss, grad = step()
    changed = {
        f"{name} {number}": value
        for number, part in enumerate(parts)
        for name, value in part.state().items()
    }
    return {"loss": loss, "grad_features": grad, **changed}


def _released(
    problem: Problem, parts: tuple[Part, ...], product: Callable[..., Tensor]
) -> Callable[[], tuple[Tensor, Tensor]]:
    return authors.step(parts, problem.features, problem.positives, problem.lr, product)


def _chosen_from(problem: Problem, layer: str, part: Part) -> int:
    """The features of a row: a bottleneck stands beside the layers whose work it matches."""
    return problem.shape.features if layer == "bottleneck" else part.n_features


def _forward(part: Part, x: Tensor) -> Tensor:
    if part.pattern == "dense":
        return torch.mm(x, part.weight.t())
    if part.pattern == "fixed_fan_in":
        from haste.kernels.triton_fixed import fixed_fan_in_forward

        return fixed_fan_in_forward(x, part.weight, part.index, None, distinct=True)
    from haste.kernels.triton_linear import group_forward

    return group_forward(x, part.weight, part.index, None, group_size=part.group_size, run=part.run)


def _grad_features(part: Part, dz: Tensor) -> Tensor:
    if part.pattern == "dense":
        return torch.mm(dz, part.weight)
    if part.pattern == "fixed_fan_in":
        from haste.kernels.triton_fixed import fixed_fan_in_grad_features

        return fixed_fan_in_grad_features(
            dz, part.weight, part.index, part.n_features, distinct=True
        )
    from haste.kernels.triton_linear import group_grad_features

    return group_grad_features(
        dz, part.weight, part.index, part.n_features, group_size=part.group_size, run=part.run,
        distinct=True,
    )  # fmt: skip


def _grad_weight(part: Part, x: Tensor, dz: Tensor) -> Tensor:
    if part.pattern == "dense":
        return torch.mm(dz.t(), x)
    if part.pattern == "fixed_fan_in":
        from haste.kernels.triton_fixed import fixed_fan_in_grad_weight

        return fixed_fan_in_grad_weight(x, dz, part.index, dtype=part.weight.dtype)
    from haste.kernels.triton_linear import group_grad_weight

    return group_grad_weight(
        x, dz, part.index, part.weight.shape[1], group_size=part.group_size, run=part.run,
        dtype=part.weight.dtype,
    )  # fmt: skip


def _fused(problem: Problem, part: Part, momentum: float) -> Callable[[], tuple[Tensor, Tensor]]:
    x = problem.columns(part.columns)
    options = {
        "lr": problem.lr,
        "momentum_factor": momentum,
        "seed": 1,
        "step": 2,
        "backend": "triton",
    }
    state = (part.bias, part.momentum, part.bias_momentum, problem.positives_of(part))
    if part.pattern == "dense":
        return lambda: dense_fused_step(x, part.weight, *state, **options)
    if part.pattern == "fixed_fan_in":
        return lambda: fixed_fan_in_fused_step(
            x, part.weight, part.index, *state, distinct=True, **options
        )
    return lambda: group_fused_step(
        x, part.weight, part.index, *state, group_size=part.group_size, run=part.run,
        distinct=True, **options,
    )  # fmt: skip


def _haste(
    problem: Problem, momentum: float
) -> tuple[tuple[Part, ...], Callable[[], tuple[Tensor, Tensor]]]:
    """Head and tail as they are trained: with 384 features each reads its own half."""
    shape, width = problem.shape, problem.shape.encoder
    options = LayerOptions(dtype=torch.bfloat16, momentum=momentum, backend="triton")
    tail_columns = slice(0, shape.features)
    head_columns = slice(shape.features if shape.features < width else 0, width)
    size = head_columns.stop - head_columns.start
    head = Dense(size, shape.head, options, problem.random)
    tail = GroupFanIn(
        shape.features, shape.labels, shape.fan_in, shape.group_size, options, problem.random
    )
    for velocity in (head.momentum, head.bias_momentum, tail.momentum, tail.bias_momentum):
        if velocity is not None:
            velocity.normal_(generator=problem.random)
    layer = HeadTail(head, tail, width, head_columns, tail_columns)

    def step() -> tuple[Tensor, Tensor]:
        result = layer.step(problem.features, problem.positives, problem.lr, seed=1, step=2)
        return result.loss, result.grad_features

    parts = (
        Part(
            "dense", head_columns, head.weight, head.bias,
            momentum=head.momentum, bias_momentum=head.bias_momentum,
        ),
        Part(
            "group_fan_in", tail_columns, tail.weight, tail.bias, tail.slots, tail.momentum,
            tail.bias_momentum, shape.group_size, shape.head,
        ),
    )  # fmt: skip
    return parts, step


def _by_autograd(problem: Problem, part: Part) -> Callable[[], tuple[Tensor, Tensor]]:
    """The dense layer as one would write it first: all logits, a dense target, autograd, SGD."""
    # parameters of the same memory: a second copy of the weights would not fit everywhere
    weight, bias = (torch.nn.Parameter(value) for value in (part.weight, part.bias))
    x, positives = problem.features, problem.positives
    optimizer = torch.optim.SGD([weight, bias], lr=problem.lr)
    loss_of = torch.nn.BCEWithLogitsLoss(reduction="sum")

    def step() -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        target = torch.zeros(len(x), len(weight), dtype=x.dtype, device=x.device)
        target[positives.row.long(), positives.label.long()] = 1
        loss = loss_of(torch.nn.functional.linear(leaf, weight, bias), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach(), leaf.grad

    return step
