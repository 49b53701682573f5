"""Our numbers are those of xclib (committed from one run of it, and live where it is installed) and napkinxc."""

from __future__ import annotations

import json
from pathlib import Path

import napkinxc_metrics
import numpy as np
import pytest
from metrics_problem import EXTRA, LABELS, TRAIN_DOCUMENTS, A, B, K, problem

from haste.metrics import xclib
from haste.metrics.matching import binary
from haste.metrics.metrics import evaluate, measure
from haste.metrics.propensity import inverse_propensity

GOLDEN = json.loads((Path(__file__).parent / "golden_xclib.json").read_text())
VARIANTS = {"ties": True, "distinct": False}
RANKS = {"P": 5, "PSP": 5, "nDCG": 5, "PSnDCG": 5, "R": K}
EVERY = [(kind, k) for kind, last in RANKS.items() for k in range(1, last + 1)]
"""every metric at every rank"""


def weights() -> np.ndarray:
    return inverse_propensity(problem(ties=True).counts, TRAIN_DOCUMENTS, A, B)


def golden(variant: str) -> list[float]:
    return [100.0 * GOLDEN[variant][kind][k - 1] for kind, k in EVERY]


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
@pytest.mark.parametrize(
    "library",
    [
        pytest.param(measure, id="haste"),
        pytest.param(napkinxc_metrics.measure, id="napkinxc"),
        pytest.param(
            xclib.measure,
            id="xclib",
            marks=[
                pytest.mark.xclib,
                pytest.mark.skipif(not xclib.installed(), reason="xclib is not installed"),
            ],
        ),
    ],
)
def test_every_metric_at_every_rank_has_the_golden_value(library, variant):
    made = problem(VARIANTS[variant])
    found = library(EVERY, made.ids, binary(made.truth), weights())
    # 1e-6 of 1: xclib keeps nDCG in float32
    np.testing.assert_allclose(found, golden(variant), rtol=0, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluate_says_what_measured(variant):
    made = problem(VARIANTS[variant])
    found = evaluate(made.ids, made.scores, made.truth, weights(), made.counts)
    assert found["backend"] == (xclib.name() if xclib.installed() else "haste")
    expected = dict(zip(EVERY, golden(variant), strict=True))
    for name, value in found["metrics"].items():
        kind, k = name.split("@")
        assert value == pytest.approx(expected[kind, int(k)], abs=1e-4), name
