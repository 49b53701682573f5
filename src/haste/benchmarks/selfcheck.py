"""Whether the kernels are right where they run: small fixed problems against fp64 in plain torch.

A kernel that is right on one GPU may be compiled to wrong code for another, or by another version of
Triton, and a training run shows nothing of it but worse metrics.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from haste.benchmarks.gate import FACTOR, Judgement, relative_error
from haste.data.batches import Positives
from haste.kernels import reference
from haste.kernels.attention import short_attention
from haste.kernels.dropout import dropout
from haste.kernels.functional import (
    block_sparse_linear,
    dense_fused_step,
    fixed_fan_in_fused_step,
    fixed_fan_in_linear,
    group_fused_step,
    group_linear,
)
from haste.kernels.topk import topk

log = logging.getLogger(__name__)

FAMILIES = ("attention", "group", "fixed_fan_in", "dense", "dropout", "topk")
FLOOR = 5e-3
"""relative error in bf16 below which no kernel is asked to be"""
P = 0.1
"""share that dropout zeroes"""
TOKENS = (3, 16, 24, 32, 64)
"""of the documents of attention"""
HEADS, HEAD_SIZE = 4, 32
RUN = 8
"""features of a run of the block-sparse layer"""
LR, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 1e-2
STEP = 2**-8
"""of bf16 numbers below 1"""

Results = dict[str, Tensor]


@dataclass(frozen=True)
class Check:
    """What one kernel gave: of its results the one nearest to its bound, or furthest beyond it."""

    what: str
    family: str
    """one of FAMILIES"""
    result: str
    error: float
    """relative to fp64; of a share that is drawn, the distance to what it should be"""
    bound: float
    failure: str = ""
    """why the kernel did not run"""

    @property
    def passed(self) -> bool:
        """Whether it ran, and the error keeps to the bound; NaN does not."""
        return not self.failure and self.error <= self.bound


def checks(device: torch.device | str, families: Collection[str] = FAMILIES) -> Iterator[Check]:
    """Run the kernels of `families` on `device`, a GPU, or a CPU in Triton's interpreter.

    Each runs just before its check is given, and most of the time is that of compiling. Nothing is
    raised for a kernel that does not run: that is what its check says.
    """
    device = torch.device(device)
    for what, family, measure in _plan():
        if family not in families:
            continue
        try:
            worst = _worst(measure(device))
        except Exception as error:  # those of compilers and drivers have no class in common
            log.debug("%s does not run", what, exc_info=True)
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Check(what, family, "", math.inf, 0.0, reason[:200])
        else:
            yield Check(what, family, worst.result, worst.error, worst.bound)


def _plan() -> Iterator[tuple[str, str, Callable[[torch.device], Iterable[Judgement]]]]:
    """Name, family and measurement of each check."""
    for tokens in TOKENS:
        yield f"attention, {tokens} tokens", "attention", partial(_attention, tokens, 0.0)
        what = f"attention with dropout, {tokens} tokens"
        yield what, "attention", partial(_attention, tokens, P)
    group = Shape(64, 96, 40, 32, 16)
    yield "group_linear", "group", partial(_linear, group, _group_linear)
    yield "group_linear, fixed order", "group", partial(_linear, group, _group_linear_in_order)
    yield "block_sparse_linear", "group", partial(_linear, replace(group, run=RUN), _block_sparse)
    fixed = Shape(64, 96, 40, 32, 1)
    yield "fixed_fan_in_linear", "fixed_fan_in", partial(_linear, fixed, _fixed_fan_in_linear)
    # tiles of 16 documents in one warp, of 32, and what large layers take: a dense product for the
    # features' gradient
    shapes = (replace(group, batch=16), group, Shape(128, 256, 80, 128, 32))
    for shape in shapes:
        what = f"group_fused_step, batch {shape.batch}, fan-in {shape.fan_in}"
        yield what, "group", partial(_step, shape, _group_step)
    yield "fixed_fan_in_fused_step", "fixed_fan_in", partial(_step, fixed, _fixed_fan_in_step)
    dense = Shape(64, 96, 40, 96, 40)
    yield "dense_fused_step", "dense", partial(_step, dense, _dense_step)
    yield "dropout", "dropout", _dropout
    yield "topk", "topk", _topk


def _worst(found: Iterable[Judgement]) -> Judgement:
    """The first that is wrong, or the one nearest to its bound, which may be 0."""
    return max(
        found, key=lambda each: each.error / (each.bound or 1.0) if each.passed else math.inf
    )


def _compare(got: Results, plain: Results, want: Results) -> Iterator[Judgement]:
    """Errors of a kernel, bounded by those of plain torch in the same precision."""
    for name, value in want.items():
        bound = max(FACTOR * relative_error(plain[name], value), FLOOR)
        yield Judgement(name, relative_error(got[name], value), bound)


def _share(result: str, found: Tensor, p: float) -> Judgement:
    """A share, of bool `found`, that should be p: within five standard deviations of a binomial one."""
    bound = 5 * (p * (1 - p) / found.numel()) ** 0.5
    return Judgement(result, abs(float(found.double().mean()) - p), bound)


def _gradients(
    function: Callable[..., Tensor], leaves: Results, upstream: Tensor, dtype: torch.dtype
) -> Results:
    """Output of `function` of `leaves` in `dtype`, and their gradients."""
    own = {name: leaf.detach().to(dtype).requires_grad_() for name, leaf in leaves.items()}
    out = function(*own.values())
    found = torch.autograd.grad(out, list(own.values()), upstream.to(out.dtype))
    gradients = {f"gradient of {name}": g for name, g in zip(own, found, strict=True)}
    return {"values": out.detach(), **gradients}


# attention


def _attention(tokens: int, p: float, device: torch.device) -> Iterator[Judgement]:
    random = _Random(device)
    # of short documents more, or a share could be anything
    shape = (max(2, 48 // tokens), tokens, HEADS * HEAD_SIZE)
    heads = [random.normal(*shape).unflatten(2, (HEADS, HEAD_SIZE)).transpose(1, 2) for _ in "qkvg"]
    leaves, upstream = dict(zip(("query", "key", "value"), heads, strict=False)), heads[3]
    keys = torch.ones(shape[:2], dtype=torch.bool, device=device)
    # the last one ends early
    keys[-1, (tokens + 1) // 2 :] = False
    scale, kept = HEAD_SIZE**-0.5, None
    if p:
        found = _dropout_factors(leaves["query"], leaves["key"], keys, p, scale)
        kept = torch.where(found > 0.5, 1 / (1 - p), 0.0)
        yield Judgement("factors of dropout", relative_error(found, kept), FLOOR)
        there = keys[:, None, None].expand(kept.shape)
        yield _share("share dropped", kept[there] == 0, p)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _seeded(query, key, value, keys, p, scale)

    def naive(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = (query @ key.mT * scale).masked_fill(~keys[:, None, None], -torch.inf)
        weights = scores.softmax(3)
        return (weights if kept is None else weights * kept.to(weights.dtype)) @ value

    yield from _compare(
        _gradients(attend, leaves, upstream, torch.bfloat16),
        _gradients(naive, leaves, upstream, torch.bfloat16),
        _gradients(naive, leaves, upstream, torch.float64),
    )


def _seeded(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, p: float, scale: float
) -> Tensor:
    """`short_attention` that drops the same weights at every call."""
    device = query.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(7)
        return short_attention(query, key, value, keys, p, scale)


def _dropout_factors(query: Tensor, key: Tensor, keys: Tensor, p: float, scale: float) -> Tensor:
    """fp64 [B, heads, T, T], read from the kernel: values that are columns of an identity matrix leave
    its weights, dropped and scaled."""
    documents, heads, tokens, size = query.shape
    identity = torch.eye(tokens, device=query.device, dtype=query.dtype)
    identity = torch.nn.functional.pad(identity, (0, -tokens % size))
    found = []
    for columns in identity.split(size, 1):
        value = columns.expand(documents, heads, tokens, size)
        dropped = _seeded(query, key, value, keys, p, scale).double()
        whole = _seeded(query, key, value, keys, 0.0, scale).double()
        found.append(torch.where(whole > 0, dropped / whole, 0.0))
    return torch.cat(found, 3)[..., :tokens]


# output layers


@dataclass(frozen=True)
class Shape:
    """Of a layer and its batch; a dense layer is one group that reads all features."""

    batch: int
    features: int
    labels: int
    fan_in: int
    group_size: int
    run: int = 1


@dataclass(frozen=True)
class Layer:
    """A layer in bf16: features [B, H], weight and momentum [L, F], bias and its momentum [L]."""

    shape: Shape
    features: Tensor
    weight: Tensor
    slots: Tensor
    """int32 [K, F / run], as kernels take it"""
    bias: Tensor
    momentum: Tensor
    bias_momentum: Tensor
    positives: Positives

    @property
    def index(self) -> Tensor:
        """int32 [K, F]: the features of each group."""
        run = self.shape.run
        return self.slots if run == 1 else reference.run_index(self.slots * run, run)


def _draw(shape: Shape, device: torch.device) -> Layer:
    random = _Random(device)
    groups = -(-shape.labels // shape.group_size)
    rows = (shape.labels, shape.fan_in)
    label, row = (random.uniform(shape.labels, shape.batch) < 0.1).nonzero(as_tuple=True)
    order = random.uniform(groups, shape.features // shape.run)
    slots = order.topk(shape.fan_in // shape.run).indices
    if shape.fan_in == shape.features:
        # rows of a dense layer have the order of the features
        slots = slots.sort(1).values
    return Layer(
        shape,
        features=random.normal(shape.batch, shape.features),
        weight=random.normal(*rows) / shape.fan_in**0.5,
        slots=slots.int(),
        bias=random.normal(shape.labels),
        momentum=random.normal(*rows),
        bias_momentum=random.normal(shape.labels),
        positives=Positives(label.int(), row.int()),
    )


Linear = Callable[[Layer, Tensor, Tensor, Tensor], Tensor]
"""of a layer's slots, and of features, weight and bias"""


def _linear(shape: Shape, function: Linear, device: torch.device) -> Iterator[Judgement]:
    layer = _draw(shape, device)
    leaves = {"features": layer.features, "weight": layer.weight, "bias": layer.bias}
    upstream = _Random(device).normal(shape.batch, shape.labels)

    def naive(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return reference.linear(features, weight, layer.index, bias, shape.group_size)

    return _compare(
        _gradients(partial(function, layer), leaves, upstream, torch.bfloat16),
        _gradients(naive, leaves, upstream, torch.bfloat16),
        _gradients(naive, leaves, upstream, torch.float64),
    )


def _group_linear(layer: Layer, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    size = layer.shape.group_size
    return group_linear(features, weight, layer.slots, bias, group_size=size, backend="triton")


def _group_linear_in_order(layer: Layer, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return group_linear(
        features, weight, layer.slots, bias, group_size=layer.shape.group_size, distinct=True,
        deterministic=True, backend="triton",
    )  # fmt: skip


def _block_sparse(layer: Layer, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return block_sparse_linear(
        features, weight, layer.slots, bias, group_size=layer.shape.group_size, run=layer.shape.run,
        backend="triton",
    )  # fmt: skip


def _fixed_fan_in_linear(layer: Layer, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return fixed_fan_in_linear(features, weight, layer.slots, bias, distinct=True, backend="triton")


Step = Callable[..., tuple[Tensor, Tensor]]
"""of a layer, which it updates, and options: loss and the features' gradient"""


def _step(shape: Shape, function: Step, device: torch.device) -> Iterator[Judgement]:
    """Rounding to nearest against the reference, and how often stochastic rounding goes down."""
    layer = _draw(shape, device)
    options = {"lr": LR, "momentum_factor": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    plain, want = (
        _reference_step(layer, dtype, options) for dtype in (torch.bfloat16, torch.float64)
    )
    loss, gradient = function(layer, rounding="nearest", **options)
    got = {"loss": loss, "grad_features": gradient}
    for name in ("weight", "bias", "momentum", "bias_momentum"):
        got[name] = getattr(layer, name)
    yield from _compare(got, plain, want)
    # logits so large that each of the batch adds 1 to the gradient of a weight, which should lose an
    # eighth of a step of bf16: one in eight loses all of it
    for value in (layer.features, layer.weight):
        value.fill_(1.0)
    for value in (layer.bias, layer.momentum, layer.bias_momentum):
        value.zero_()
    nothing = torch.empty(0, dtype=torch.int32, device=device)
    function(
        replace(layer, positives=Positives(nothing, nothing)),
        rounding="stochastic", lr=STEP / 8 / shape.batch, momentum_factor=MOMENTUM,
    )  # fmt: skip
    down = layer.weight == 1 - STEP
    yield _share("share rounded down", down, 1 / 8)
    strange = ~down & (layer.weight != 1)
    yield Judgement("rounded to neighbours", float(strange.double().mean()), 0.0)


def _reference_step(layer: Layer, dtype: torch.dtype, options: dict[str, float]) -> Results:
    def wide(value: Tensor) -> Tensor:
        return value.to(dtype)

    return reference.fused_step(
        wide(layer.features), wide(layer.weight), layer.index, wide(layer.bias),
        wide(layer.momentum), wide(layer.bias_momentum), layer.positives.label, layer.positives.row,
        group_size=layer.shape.group_size, **options,
    )  # fmt: skip


def _group_step(layer: Layer, **options: object) -> tuple[Tensor, Tensor]:
    return group_fused_step(
        layer.features, layer.weight, layer.slots, layer.bias, layer.momentum, layer.bias_momentum,
        layer.positives, group_size=layer.shape.group_size, distinct=True, seed=1, step=2,
        backend="triton", **options,
    )  # fmt: skip


def _fixed_fan_in_step(layer: Layer, **options: object) -> tuple[Tensor, Tensor]:
    return fixed_fan_in_fused_step(
        layer.features, layer.weight, layer.slots, layer.bias, layer.momentum, layer.bias_momentum,
        layer.positives, distinct=True, seed=1, step=2, backend="triton", **options,
    )  # fmt: skip


def _dense_step(layer: Layer, **options: object) -> tuple[Tensor, Tensor]:
    return dense_fused_step(
        layer.features, layer.weight, layer.bias, layer.momentum, layer.bias_momentum,
        layer.positives, seed=1, step=2, backend="triton", **options,
    )  # fmt: skip


# what layers share


def _dropout(device: torch.device) -> Iterator[Judgement]:
    # none is 0 before
    values = (1 + _Random(device).uniform(64, 384)).bfloat16()
    got = dropout(values, P, seed=3, step=5, backend="triton")
    yield _share("share dropped", got == 0, P)
    scaled = torch.where(got != 0, values.double() / (1 - P), 0.0)
    yield Judgement("values kept", relative_error(got, scaled), FLOOR)


def _topk(device: torch.device) -> Iterator[Judgement]:
    logits = _Random(device).uniform(32, 1000)
    scores, rows = topk(lambda tile: logits[:, tile], logits.shape[1], 5, 300)
    want = logits.double().topk(5)
    yield Judgement("scores", relative_error(scores, want.values), 0.0)
    yield Judgement("labels", float((rows != want.indices).double().mean()), 0.0)


class _Random:
    """Numbers that are the same on every device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        """In bf16."""
        return torch.randn(shape, generator=self.generator).to(self.device, torch.bfloat16)

    def uniform(self, *shape: int) -> Tensor:
        """In fp32, between 0 and 1."""
        return torch.rand(shape, generator=self.generator).to(self.device)
