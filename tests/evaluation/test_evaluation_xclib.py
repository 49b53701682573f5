"""Our numbers are xclib's: against values committed from one run of it, and live where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_problem import EXTRA, LABELS, TRAIN_DOCUMENTS, A, B, K, problem

from haste.evaluation.backends import (
    NapkinxcBackend,
    XclibBackend,
    choose_backend,
    xclib_installed,
)
from haste.evaluation.matching import binary
from haste.evaluation.metrics import METRICS, evaluate, per_document
from haste.evaluation.propensity import inverse_propensity

GOLDEN = json.loads((Path(__file__).parent / "golden_xclib.json").read_text())
VARIANTS = {"ties": True, "distinct": False}
live = [
    pytest.mark.xclib,
    pytest.mark.skipif(not xclib_installed(), reason="xclib is not installed"),
]


def golden(variant: str, name: str) -> float:
    kind, k = name.split("@")
    return GOLDEN[variant][kind][int(k) - 1]


def weights() -> np.ndarray:
    return inverse_propensity(problem(ties=True).counts, TRAIN_DOCUMENTS, A, B)


def curves(backend, variant: str) -> dict[str, np.ndarray]:
    made = problem(VARIANTS[variant])
    truth = binary(made.truth)
    ranks = {"P": 5, "PSP": 5, "nDCG": 5, "PSnDCG": 5, "R": K}
    return {kind: backend.curve(kind, made.ids, truth, k, weights()) for kind, k in ranks.items()}


def test_the_problem_has_the_hard_cases():
    made = problem(ties=True)
    predicted = (made.ids >= 0).sum(axis=1)
    assert (np.diff(made.truth.indptr) == 0).sum() >= 5
    assert made.truth[:, LABELS:].nnz >= 10
    assert (made.counts[LABELS:] == 0).all()
    assert made.counts.size == LABELS + EXTRA
    assert {0, 1, 100} <= set(predicted.tolist())
    assert (made.scores[predicted == 100][:, 0] == made.scores[predicted == 100][:, 3]).any()


def test_inverse_propensities_are_xclibs():
    np.testing.assert_allclose(weights(), GOLDEN["inverse_propensity"], rtol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluate_gives_the_golden_values(variant):
    made = problem(VARIANTS[variant])
    found = evaluate(made.ids, made.scores, made.truth, weights(), made.counts)["metrics"]
    for name in METRICS:
        assert found[name] / 100 == pytest.approx(golden(variant, name), abs=1e-6), name
        mean = per_document(name, made.ids, made.truth, weights()).mean()
        assert mean / 100 == pytest.approx(golden(variant, name), abs=1e-6), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_napkinxc_gives_the_golden_values_at_every_rank(variant):
    for kind, curve in curves(NapkinxcBackend(), variant).items():
        np.testing.assert_allclose(curve, GOLDEN[variant][kind], rtol=0, atol=1e-6, err_msg=kind)


@pytest.mark.parametrize("variant", [pytest.param(name, marks=live) for name in VARIANTS])
def test_xclib_live(variant):
    backend = choose_backend()
    assert isinstance(backend, XclibBackend)
    assert backend.name.startswith("xclib ")
    other = curves(NapkinxcBackend(), variant)
    for kind, curve in curves(backend, variant).items():
        np.testing.assert_allclose(curve, GOLDEN[variant][kind], rtol=0, atol=1e-6, err_msg=kind)
        np.testing.assert_allclose(curve, other[kind], rtol=0, atol=1e-6, err_msg=kind)
