"""Correctness checks of kernels: before each timing of the benchmark, and as the self-check of a GPU.

Errors against fp64 are bounded by those of plain torch at the same precision. A kernel that is correct on
one GPU may be compiled to wrong code for another, or by another version of Triton, and in a training run
that shows only as worse metrics.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from haste.bench.cases import Case, Results, build, fused_step
from haste.bench.problems import Part, Problem, Shape
from haste.kernels import reference
from haste.kernels.attention import short_attention
from haste.kernels.dropout import dropout
from haste.kernels.rounding import dequantize
from haste.kernels.state import Positives, Sgd
from haste.kernels.topk import topk
from haste.kernels.triton.group_topk import topk as group_topk

log = logging.getLogger(__name__)

FACTOR = 1.5
"""largest error of a kernel, as a multiple of plain torch's"""
TINY = 2e-3
"""relative error of a single rounding to bf16; bounds are not below it"""
TWO_ROUNDINGS = 5e-3
LARGE_LR = 0.1
"""of the steps that are checked: the update outweighs the former weights, so its errors show"""
STEP = 2**-8
"""distance of bf16 values just below 1"""


@dataclass(frozen=True)
class Judgement:
    """How one result compares with its bound."""

    result: str
    error: float
    """||got - want|| / ||want||, want in fp64; for a share of random events, the distance to its
    probability"""
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound; NaN is not."""
        return self.error <= self.bound


def judge(case: Case) -> Judgement:
    """Run a case and compare its results; returns the one nearest to its bound, or furthest beyond it."""
    return _worst(_judgements(case))


def relative_error(got: Tensor, want: Tensor) -> float:
    """||got - want|| / ||want|| in fp64."""
    exact = got if got.dtype == torch.float64 else dequantize(got).double()
    return float((exact - want).norm() / want.norm().clamp(min=1e-30))


def _built_judgements(problem: Problem, layer: str, direction: str) -> Iterator[Judgement]:
    return _judgements(build(problem, layer, direction))


def _judgements(case: Case) -> Iterator[Judgement]:
    want, plain = case.answers()
    yield from _compare(case.run(), plain, want)
    if case.fused is not None and case.fused.weight.dtype == torch.bfloat16:
        yield from _rounding(case.fused)


def _worst(judgements: Iterable[Judgement]) -> Judgement:
    """The first that is wrong, or the one nearest to its bound, which may be 0."""
    return max(
        judgements,
        key=lambda judgement: (
            judgement.error / (judgement.bound or 1.0) if judgement.passed else math.inf
        ),
    )


def _compare(got: Results, plain: Results, want: Results) -> Iterator[Judgement]:
    for name, value in want.items():
        bound = max(FACTOR * relative_error(plain[name], value), TINY)
        yield Judgement(name, relative_error(got[name], value), bound)


def _share(result: str, hits: Tensor, p: float) -> Judgement:
    """Whether the share of true values in bool `hits` is p, within five binomial standard deviations."""
    bound = 5 * (p * (1 - p) / hits.numel()) ** 0.5
    return Judgement(result, abs(float(hits.double().mean()) - p), bound)


def _rounding(part: Part, batch: int = 16) -> Iterator[Judgement]:
    """How often stochastic rounding of a step goes down.

    Logits are so large that each document adds 1 to the gradient of a weight, and the update is an eighth
    of STEP: one weight in eight should lose STEP, the others nothing.
    """
    part = part.copy()
    part.weight.fill_(1.0)
    for name, value in part.state().items():
        if name != "weight":
            value.zero_()
    device = part.weight.device
    features = torch.ones(batch, part.n_features, dtype=torch.bfloat16, device=device)
    none = torch.empty(0, dtype=torch.int32, device=device)
    fused_step(part, features, Positives(none, none), STEP / 8 / batch, Sgd())
    down = part.weight == 1 - STEP
    yield _share("share rounded down", down, 1 / 8)
    not_neighbours = ~down & (part.weight != 1)
    yield Judgement("rounded to neighbours", float(not_neighbours.double().mean()), 0.0)


# the self-check

_GROUP = Shape("check", 64, 96, 40, 32, 16, head=40, momentum=0.9, encoder=96)
# tiles of 16 documents in one warp, of 32, and a dense product for dX as in large layers
_STEPS = (replace(_GROUP, batch=16), _GROUP, Shape("check", 128, 256, 80, 128, 32, 40, 5, 0.9, 256))
LAYERS: Mapping[str, tuple[tuple[Shape, str, str], ...]] = {
    "group": (
        (_GROUP, "group_fan_in", "autograd"),
        (_GROUP, "group_fan_in", "autograd_deterministic"),
        (_GROUP, "block_sparse", "autograd"),
        *((shape, "group_fan_in", "step_momentum") for shape in _STEPS),
        (_GROUP, "group_fan_in_fp8", "step"),
        (_GROUP, "block_sparse", "step"),
    ),
    "fixed_fan_in": (
        (_GROUP, "fixed_fan_in", "autograd"),
        (_GROUP, "fixed_fan_in", "step_momentum"),
    ),
    "dense": (
        (_GROUP, "dense", "step_momentum"),
        (_GROUP, "dense768_fp8", "step"),
        (_GROUP, "haste", "step_momentum"),
    ),
}
"""family of kernels -> the cases of the benchmark that its self-check runs"""
FAMILIES = ("attention", *LAYERS, "dropout", "topk")

WEIGHT_DECAY = 1e-2
P = 0.1
"""share that dropout zeroes"""
TOKENS = (3, 16, 24, 32, 64)
"""tokens per document of the checks of attention"""
HEADS, HEAD_SIZE = 4, 32


@dataclass(frozen=True)
class Check:
    """The check of one kernel: of its results the one nearest to its bound, or furthest beyond it."""

    what: str
    family: str
    """one of FAMILIES"""
    judgement: Judgement | None
    failure: str = ""
    """why the kernel did not run"""

    @property
    def passed(self) -> bool:
        """Whether the kernel ran and is correct."""
        return self.judgement is not None and self.judgement.passed


def checks(device: torch.device | str, families: Collection[str] = FAMILIES) -> Iterator[Check]:
    """Run the kernels of `families` on `device`, a GPU, or a CPU in Triton's interpreter.

    Each kernel runs just before its check is yielded; most of the time is spent on compiling. A kernel that
    does not run raises nothing: its check has the failure.
    """
    device = torch.device(device)
    for what, family, judgements in _plan(device):
        if family not in families:
            continue
        try:
            worst = _worst(judgements())
        except Exception as error:  # errors of compilers and drivers have no common class
            log.debug("%s does not run", what, exc_info=True)
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Check(what, family, None, reason[:200])
        else:
            yield Check(what, family, worst)


def _plan(device: torch.device) -> Iterator[tuple[str, str, Callable[[], Iterable[Judgement]]]]:
    """Name, family and judgements of each check."""
    for tokens in TOKENS:
        for p, what in ((0.0, "attention"), (P, "attention with dropout")):
            yield (
                f"{what}, {tokens} tokens",
                "attention",
                partial(_attention, tokens, p, device),
            )
    for family, cases in LAYERS.items():
        for shape, layer, direction in cases:
            what = f"{layer}, {direction}, batch {shape.batch}, fan-in {shape.fan_in}"
            problem = Problem(shape, device, LARGE_LR, WEIGHT_DECAY)
            yield (
                what,
                family,
                partial(_built_judgements, problem, layer, direction),
            )
    yield "dropout", "dropout", lambda: _dropout(device)
    yield "topk", "topk", lambda: _topk(device)
    yield "topk of a group-shared layer", "topk", lambda: _group_topk(device)


# attention


def _attention(tokens: int, p: float, device: torch.device) -> Iterator[Judgement]:
    random = _Random(device)
    # more of short documents, so that shares have small deviations
    shape = (max(2, 48 // tokens), tokens, HEADS * HEAD_SIZE)
    heads = [random.normal(*shape).unflatten(2, (HEADS, HEAD_SIZE)).transpose(1, 2) for _ in "qkvg"]
    leaves, upstream = dict(zip(("query", "key", "value"), heads, strict=False)), heads[3]
    keys = torch.ones(shape[:2], dtype=torch.bool, device=device)
    # the last document is shorter
    keys[-1, (tokens + 1) // 2 :] = False
    scale, kept = HEAD_SIZE**-0.5, None
    if p:
        factors = _dropout_factors(leaves["query"], leaves["key"], keys, p, scale)
        kept = torch.where(factors > 0.5, 1 / (1 - p), 0.0)
        yield Judgement("factors of dropout", relative_error(factors, kept), TWO_ROUNDINGS)
        attended = keys[:, None, None].expand(kept.shape)
        yield _share("share dropped", kept[attended] == 0, p)

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
    """fp64 [B, heads, T, T], from the kernel: with columns of an identity matrix as values its output is
    the weights after dropout."""
    documents, heads, tokens, size = query.shape
    identity = torch.eye(tokens, device=query.device, dtype=query.dtype)
    identity = torch.nn.functional.pad(identity, (0, -tokens % size))
    factors = []
    for columns in identity.split(size, 1):
        value = columns.expand(documents, heads, tokens, size)
        dropped = _seeded(query, key, value, keys, p, scale).double()
        whole = _seeded(query, key, value, keys, 0.0, scale).double()
        factors.append(torch.where(whole > 0, dropped / whole, 0.0))
    return torch.cat(factors, 3)[..., :tokens]


def _gradients(
    function: Callable[..., Tensor], leaves: Results, upstream: Tensor, dtype: torch.dtype
) -> Results:
    """Output of `function` for `leaves` in `dtype`, and the gradients of the leaves."""
    inputs = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves.values()]
    out = function(*inputs)
    gradients = torch.autograd.grad(out, inputs, upstream.to(out.dtype))
    names = (f"gradient of {name}" for name in leaves)
    return {"values": out.detach(), **dict(zip(names, gradients, strict=True))}


# dropout and topk


def _dropout(device: torch.device) -> Iterator[Judgement]:
    # no value is 0 before dropout
    values = (1 + _Random(device).uniform(64, 384)).bfloat16()
    got = dropout(values, P, seed=3, step=5, backend="triton")
    yield _share("share dropped", got == 0, P)
    scaled = torch.where(got != 0, values.double() / (1 - P), 0.0)
    yield Judgement("values kept", relative_error(got, scaled), TWO_ROUNDINGS)


def _topk(device: torch.device) -> Iterator[Judgement]:
    logits = _Random(device).uniform(32, 1000)
    scores, rows = topk(lambda tile: logits[:, tile], logits.shape[1], 5, 300)
    want = logits.double().topk(5)
    yield Judgement("scores", relative_error(scores, want.values), 0.0)
    yield Judgement("labels", float((rows != want.indices).double().mean()), 0.0)


def _group_topk(device: torch.device) -> Iterator[Judgement]:
    n_labels, n_features, fan_in, group_size, k = 5000, 64, 32, 32, 20
    random = _Random(device)
    x, weight, bias = (
        random.normal(9, n_features),
        random.normal(n_labels, fan_in),
        random.normal(n_labels),
    )
    order = random.uniform(-(-n_labels // group_size), n_features).argsort(1)
    index = order[:, :fan_in].int().contiguous()
    scores, rows = group_topk(x, weight, index, bias, k, group_size=group_size)
    logits = reference.linear(x.double(), weight.double(), index, bias.double(), group_size)
    want = logits.topk(k).values
    yield Judgement("scores", relative_error(scores, want), TINY)
    yield Judgement("scores of the labels", relative_error(logits.gather(1, rows), want), TINY)


class _Random:
    """Random values that are the same on every device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        """In bf16."""
        return torch.randn(shape, generator=self.generator).to(self.device, torch.bfloat16)

    def uniform(self, *shape: int) -> Tensor:
        """In fp32, between 0 and 1."""
        return torch.rand(shape, generator=self.generator).to(self.device)
