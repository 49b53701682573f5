"""The self-check finds kernels that are made wrong here; they run in Triton's interpreter without a GPU."""

import math
from dataclasses import replace

import pytest
import torch

from haste.bench import cases, check, encoder_checks
from haste.kernels.triton import packed_attention, residual

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def results(*families):
    return list(check.checks(DEVICE, families))


@pytest.fixture
def few(monkeypatch):
    """Of each family one product, if any, and one step: each takes a second in the interpreter."""
    chosen = {}
    for family, cases_of in check.LAYERS.items():
        products = [case for case in cases_of if case[2] == "autograd"]
        chosen[family] = (*products[:1], *[case for case in cases_of if "step" in case[2]][:1])
    monkeypatch.setattr(check, "LAYERS", chosen)
    monkeypatch.setattr(encoder_checks, "TOKENS", (16,))
    small(monkeypatch)


def small(monkeypatch):
    """Activations that the interpreter passes over in a second."""
    monkeypatch.setattr(encoder_checks, "WIDTHS", (96,))
    monkeypatch.setattr(encoder_checks, "ROWS", 6)


def test_all_kernels_are_right_here(monkeypatch):
    monkeypatch.setattr(encoder_checks, "TOKENS", (16, 64))
    small(monkeypatch)
    state = torch.get_rng_state()
    every = list(check.checks(DEVICE))
    assert [each for each in every if not each.passed] == []
    assert {each.family for each in every} == set(check.FAMILIES)
    assert len({each.what for each in every}) == len(every)
    assert torch.equal(state, torch.get_rng_state())


def scaled(result):
    """A result, or the first of several, off by a fiftieth."""
    if isinstance(result, tuple):
        return 1.02 * result[0], *result[1:]
    return 1.02 * result


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("module", "name", "family", "result"),
    [
        (cases, "group_linear", "group", "out"),
        (cases, "group_linear", "fixed_fan_in", "out"),
        (cases, "group_fused_step", "group", "loss"),
        (cases, "group_fused_step", "fixed_fan_in", "loss"),
        (cases, "dense_fused_step", "dense", "loss"),
        (packed_attention, "attend", "packed", "values"),
        (packed_attention, "attend_backward", "packed", "gradient of query"),
        (residual, "add_norm", "packed", "sum"),
        (residual, "norm_backward", "packed", "gradient of sum"),
        (residual, "gelu_backward", "packed", "gradient of inner"),
        (check, "dropout", "dropout", "values kept"),
    ],
)
def test_a_result_off_by_a_fiftieth_is_found(monkeypatch, module, name, family, result):
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **options: scaled(right(*args, **options)))
    wrong = [each.judgement for each in results(family) if not each.passed]
    assert result in {each.result for each in wrong}
    assert all(0.01 < each.error < 0.03 for each in wrong)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("function", "result"),
    [
        (
            lambda right: (
                lambda x, state, *args, **o: right(
                    x, replace(state, weight=state.weight.clone()), *args, **o
                )
            ),
            "weight 0",
        ),
        (
            lambda right: lambda *a, **o: right(*a[:-1], replace(a[-1], rounding="nearest"), **o),
            "share rounded down",
        ),
    ],
    ids=["nothing is updated", "rounding to nearest"],
)
def test_a_wrong_update_is_found(monkeypatch, function, result):
    monkeypatch.setattr(cases, "dense_fused_step", function(cases.dense_fused_step))
    wrong = {each.judgement.result for each in results("dense") if not each.passed}
    assert result in wrong


def test_dropout_of_another_share_is_found(monkeypatch):
    right = packed_attention.attend

    def thrice(qkv, documents, dropout):
        p = dropout.p
        return right(qkv, documents, replace(dropout, p=3 * p)) * (1 - 3 * p) / (1 - p)

    monkeypatch.setattr(packed_attention, "attend", thrice)
    monkeypatch.setattr(encoder_checks, "TOKENS", (16,))
    small(monkeypatch)
    wrong = [each for each in results("packed") if not each.passed]
    assert [each.what for each in wrong] == [
        f"packed attention with dropout, {tokens} tokens" for tokens in encoder_checks.TOKENS
    ]
    assert {each.judgement.result for each in wrong} == {"share dropped"}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("module", "name", "argument", "moved", "result"),
    [
        (
            packed_attention,
            "attend_backward",
            2,
            lambda dropout: replace(dropout, site=dropout.site + 1),
            "gradient of query",
        ),
        (residual, "norm_backward", 6, lambda site: site + 1, "gradient of the second summand"),
    ],
)
def test_gradients_with_the_dropout_of_another_place_are_found(
    monkeypatch, module, name, argument, moved, result
):
    right = getattr(module, name)

    def other(*args):
        return right(*args[:argument], moved(args[argument]), *args[argument + 1 :])

    monkeypatch.setattr(module, name, other)
    wrong = [each for each in results("packed") if not each.passed]
    assert {each.judgement.result for each in wrong} == {result}
    assert all("with dropout" in each.what for each in wrong)


def test_topk_without_the_last_labels_is_found(monkeypatch):
    right = check.topk
    monkeypatch.setattr(
        check, "topk", lambda logits, count, k, tile: right(logits, count - 300, k, tile)
    )
    # the other takes seconds in the interpreter
    chunks = next(check.checks(DEVICE, ["topk"]))
    assert not chunks.passed
    assert chunks.judgement.result == "scores"


def test_the_best_labels_of_other_weights_are_found(monkeypatch):
    right = check.group_topk
    monkeypatch.setattr(
        check,
        "group_topk",
        lambda x, weight, *rest, **sizes: right(x, 0.5 * weight, *rest, **sizes),
    )
    _, groups = results("topk")
    assert not groups.passed


@pytest.mark.usefixtures("few")
def test_values_that_are_nan_are_wrong(monkeypatch):
    right = cases.dense_fused_step

    def broken(*args, **options):
        loss, gradient = right(*args, **options)
        return loss * math.nan, gradient

    monkeypatch.setattr(cases, "dense_fused_step", broken)
    first, *_ = results("dense")
    assert first.judgement.result == "loss"
    assert not first.passed


@pytest.mark.usefixtures("few")
def test_a_kernel_that_does_not_run_is_a_finding(monkeypatch):
    def refuses(*_, **__):
        raise RuntimeError("out of resource: shared memory\nRequired: 300000")

    monkeypatch.setattr(cases, "dense_fused_step", refuses)
    first, *others = results("dense", "dropout")
    assert not first.passed
    assert first.failure == "RuntimeError: out of resource: shared memory"
    assert others[-1].passed
