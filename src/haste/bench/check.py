"""Correctness checks of kernels: before each timing of the benchmark, and as the self-check of a GPU.

Errors against fp64 are bounded by those of plain torch at the same precision. A kernel that is correct on
one GPU may be compiled to wrong code for another, or by another version of Triton, and in a training run
that shows only as worse metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from haste.bench import encoder_checks as encoder
from haste.bench.cases import Case, build, fused_step
from haste.bench.judgement import (
    TINY,
    TWO_ROUNDINGS,
    Judgement,
    Random,
    compare,
    relative_error,
    share,
    worst,
)
from haste.bench.problems import Part, Problem, Shape
from haste.bench.reason import reason
from haste.kernels import reference
from haste.kernels.dropout import dropout
from haste.kernels.state import Positives, Sgd
from haste.kernels.topk import topk
from haste.kernels.triton.group_topk import topk as group_topk

log = logging.getLogger(__name__)

LARGE_LR = 0.1
"""of the steps that are checked: the update outweighs the former weights, so its errors show"""
STEP = 2**-8
"""distance of bf16 values just below 1"""


def judge(case: Case) -> Judgement:
    """Run a case and compare its results; returns the one nearest to its bound, or furthest beyond it."""
    return worst(_judgements(case))


def _built_judgements(problem: Problem, layer: str, direction: str) -> Iterator[Judgement]:
    return _judgements(build(problem, layer, direction))


def _judgements(case: Case) -> Iterator[Judgement]:
    want, plain = case.answers()
    yield from compare(case.run(), plain, want)
    if case.fused is not None and case.fused.weight.dtype == torch.bfloat16:
        yield from _rounding(case.fused)


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
    yield share("share rounded down", down, 1 / 8)
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
FAMILIES = ("packed", *LAYERS, "dropout", "topk")

WEIGHT_DECAY = 1e-2
P = 0.1
"""share that dropout zeroes"""


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
            nearest = worst(judgements())
        except Exception as error:  # errors of compilers and drivers have no common class
            log.debug("%s does not run", what, exc_info=True)
            said = f"{type(error).__name__}: {reason(error)}"
            yield Check(what, family, None, said[:200])
        else:
            yield Check(what, family, nearest)


def _plan(device: torch.device) -> Iterator[tuple[str, str, Callable[[], Iterable[Judgement]]]]:
    """Name, family and judgements of each check."""
    for p, more in ((0.0, ""), (P, " with dropout")):
        for tokens in encoder.TOKENS:
            what = f"packed attention{more}, {tokens} tokens"
            yield what, "packed", partial(encoder.packed, tokens, p, device)
        for width in encoder.WIDTHS:
            what = f"residual sum and norm{more}, width {width}"
            yield what, "packed", partial(encoder.norm, width, p, device)
    for width in encoder.WIDTHS:
        yield f"GELU, width {4 * width}", "packed", partial(encoder.gelu, 4 * width, device)
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


# dropout and topk


def _dropout(device: torch.device) -> Iterator[Judgement]:
    # no value is 0 before dropout
    values = (1 + Random(device).uniform(64, 384)).bfloat16()
    got = dropout(values, P, seed=3, step=5, backend="triton")
    yield share("share dropped", got == 0, P)
    scaled = torch.where(got != 0, values.double() / (1 - P), 0.0)
    yield Judgement("values kept", relative_error(got, scaled), TWO_ROUNDINGS)


def _topk(device: torch.device) -> Iterator[Judgement]:
    logits = Random(device).uniform(32, 1000)
    scores, rows = topk(lambda tile: logits[:, tile], logits.shape[1], 5, 300)
    want = logits.double().topk(5)
    yield Judgement("scores", relative_error(scores, want.values), 0.0)
    yield Judgement("labels", float((rows != want.indices).double().mean()), 0.0)


def _group_topk(device: torch.device) -> Iterator[Judgement]:
    n_labels, n_features, fan_in, group_size, k = 5000, 64, 32, 32, 20
    random = Random(device)
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
