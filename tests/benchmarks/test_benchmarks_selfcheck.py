import math

import pytest
import torch

from haste.benchmarks import selfcheck
from haste.kernels import (
    triton_attention,
    triton_dense,
    triton_dropout,
    triton_group,
    triton_linear,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def found(*families):
    return list(selfcheck.checks(DEVICE, families))


def test_all_kernels_are_right_here():
    state = torch.get_rng_state()
    all_checks = list(selfcheck.checks(DEVICE))
    assert [(c.what, c.error, c.bound) for c in all_checks if not c.passed] == []
    assert {check.family for check in all_checks} == set(selfcheck.FAMILIES)
    assert len({check.what for check in all_checks}) == len(all_checks)
    assert torch.equal(state, torch.get_rng_state())


def scaled(result):
    """A result, or the first of several, off by a fiftieth."""
    if isinstance(result, tuple):
        return 1.02 * result[0], *result[1:]
    return 1.02 * result


@pytest.mark.parametrize(
    ("module", "name", "family", "result"),
    [
        (triton_attention, "attend", "attention", "values"),
        (triton_attention, "attend_backward", "attention", "gradient of query"),
        (triton_linear, "group_forward", "group", "values"),
        (triton_linear, "group_grad_features", "group", "gradient of features"),
        (triton_linear, "group_grad_weight", "group", "gradient of weight"),
        (triton_group, "group_step", "group", "loss"),
        (triton_dense, "fixed_fan_in_step", "fixed_fan_in", "loss"),
        (triton_dense, "dense_step", "dense", "loss"),
    ],
)
def test_a_result_off_by_a_fiftieth_is_found(monkeypatch, module, name, family, result):
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **options: scaled(right(*args, **options)))
    monkeypatch.setattr(selfcheck, "TOKENS", (16,))
    wrong = [check for check in found(family) if not check.passed]
    assert wrong
    assert result in {check.result for check in wrong}
    assert all(0.01 < check.error < 0.03 for check in wrong)


def test_weights_that_are_not_updated_are_found(monkeypatch):
    right = triton_dense.dense_step

    def forgets(features, weight, *state, **options):
        return right(features, weight.clone(), *state, **options)

    monkeypatch.setattr(triton_dense, "dense_step", forgets)
    (check,) = found("dense")
    assert not check.passed
    assert check.result in ("weight", "share rounded down")


def test_rounding_by_a_constant_is_found(monkeypatch):
    right = triton_group.group_step

    def truncates(features, weight, *state, sgd, **options):
        before = weight.clone()
        out = right(features, weight, *state, sgd=sgd, **options)
        if sgd.rounding == "stochastic":
            weight.copy_(before)
        return out

    monkeypatch.setattr(triton_group, "group_step", truncates)
    wrong = [check for check in found("group") if not check.passed]
    assert {check.result for check in wrong} == {"share rounded down"}
    assert all(check.error == pytest.approx(1 / 8) for check in wrong)


@pytest.mark.parametrize("tokens", selfcheck.TOKENS)
def test_dropout_of_another_share_is_found(monkeypatch, tokens):
    right = triton_attention._dropped
    monkeypatch.setattr(triton_attention, "_dropped", lambda p: (right(3 * p)[0], right(p)[1]))
    monkeypatch.setattr(selfcheck, "TOKENS", (tokens,))
    without, with_dropout = found("attention")
    assert without.passed
    assert with_dropout.result == "share dropped"
    assert with_dropout.error == pytest.approx(0.2, abs=0.1)
    assert not with_dropout.passed


def test_gradients_of_other_weights_than_were_dropped_are_found(monkeypatch):
    right = triton_attention.attend_backward

    def other(*state):
        *before, seed, scale = state
        return right(*before, None if seed is None else seed + 1, scale)

    monkeypatch.setattr(triton_attention, "attend_backward", other)
    monkeypatch.setattr(selfcheck, "TOKENS", (3, 64))
    assert [check.passed for check in found("attention")] == [True, False, True, False]


def test_dropout_of_features(monkeypatch):
    right = triton_dropout.scaled_or_zero
    broken = [
        (lambda values, p, *rest: right(values, 2 * p, *rest), "share dropped"),
        (lambda *args: 1.02 * right(*args), "values kept"),
    ]
    for kernel, result in broken:
        monkeypatch.setattr(triton_dropout, "scaled_or_zero", kernel)
        (check,) = found("dropout")
        assert not check.passed
        assert check.result == result


def test_topk_without_the_last_labels_is_found(monkeypatch):
    right = selfcheck.topk
    monkeypatch.setattr(
        selfcheck, "topk", lambda logits, count, k, tile: right(logits, count - 300, k, tile)
    )
    (check,) = found("topk")
    assert not check.passed


def test_numbers_that_are_none_are_wrong(monkeypatch):
    right = triton_dense.dense_step

    def broken(*args, **options):
        loss, gradient = right(*args, **options)
        return loss * math.nan, gradient

    monkeypatch.setattr(triton_dense, "dense_step", broken)
    (check,) = found("dense")
    assert check.result == "loss"
    assert math.isnan(check.error)
    assert not check.passed


def test_a_kernel_that_does_not_run_is_a_finding(monkeypatch):
    def refuses(*_, **__):
        raise RuntimeError("out of resource: shared memory\nRequired: 300000")

    monkeypatch.setattr(triton_dense, "dense_step", refuses)
    first, *others = found("dense", "dropout")
    assert not first.passed
    assert first.failure == "RuntimeError: out of resource: shared memory"
    assert all(check.passed for check in others)
