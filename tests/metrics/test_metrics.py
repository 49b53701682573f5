"""Metrics by hand, against a naive reference, and on input that is not clean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from haste.errors import DataError
from haste.metrics.metrics import METRICS, evaluate, per_document, quick_metrics

WEIGHTS = np.array([2.0, 3.0, 5.0, 7.0, 11.0])
FREQUENCY = np.array([9, 5, 2, 1, 0])
LOG3 = math.log2(3)
XCLIB_ROUNDING = 1e-4
"""in percent; 1e-6 of 1. xclib keeps nDCG in float32, and PSnDCG is a ratio of two such numbers"""


def ids_of(*rows: list[int], k: int = 100) -> np.ndarray:
    return np.array([row + [-1] * (k - len(row)) for row in rows], dtype=np.int32)


def truth_of(*rows: set[int], labels: int = 5) -> sp.csr_matrix:
    dense = np.zeros((len(rows), labels), dtype=np.float32)
    for i, row in enumerate(rows):
        dense[i, list(row)] = 1
    return sp.csr_matrix(dense)


def falling(ids: np.ndarray) -> np.ndarray:
    return np.where(ids < 0, -1.0, -np.arange(ids.shape[1], dtype=float)).astype(np.float32)


def measured(ids, truth, weights=WEIGHTS, frequency=FREQUENCY, reciprocal=None):
    return evaluate(ids, falling(ids), truth, weights, frequency, reciprocal)


# document 0 has labels 0, 2 and the unseen 4; document 1 has label 1; document 2 has none
IDS = ids_of([2, 1, 0, 3], [0, 1], [3])
TRUTH = truth_of({0, 2, 4}, {1}, set())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("P@1", (1 + 0 + 0) / 3),
        ("P@3", (2 + 1 + 0) / 9),
        ("P@5", (2 + 1 + 0) / 15),
        # ideals: 11, 3; 11+5+2, 3; the unseen label 4 is in them though nothing can predict it
        ("PSP@1", 5 / (11 + 3)),
        ("PSP@3", (5 + 2 + 3) / (18 + 3)),
        ("PSP@5", (5 + 2 + 3) / (18 + 3)),
        ("nDCG@1", 1 / 3),
        ("nDCG@3", ((1 + 1 / 2) / (1 + 1 / LOG3 + 1 / 2) + (1 / LOG3) / 1) / 3),
        ("nDCG@5", ((1 + 1 / 2) / (1 + 1 / LOG3 + 1 / 2) + (1 / LOG3) / 1) / 3),
        ("PSnDCG@1", 5 / (11 + 3)),
        (
            "PSnDCG@3",
            ((5 + 2 / 2) / (1 + 1 / LOG3 + 1 / 2) + (3 / LOG3) / 1)
            / ((11 + 5 / LOG3 + 2 / 2) / (1 + 1 / LOG3 + 1 / 2) + 3 / 1),
        ),
        ("R@10", (2 / 3 + 1 / 1 + 0) / 3),
        ("R@100", (2 / 3 + 1 / 1 + 0) / 3),
    ],
)
def test_values_by_hand(name, expected):
    found = measured(IDS, TRUTH)["metrics"][name]
    assert found == pytest.approx(100 * expected, abs=XCLIB_ROUNDING)
    mean = per_document(name, IDS, TRUTH, WEIGHTS).mean()
    assert mean == pytest.approx(100 * expected, abs=1e-9)


def test_the_file_has_the_agreed_shape_and_no_nan():
    found = measured(IDS, TRUTH)
    assert set(found) == {
        *("metrics", "without_reciprocal_pairs", "deciles", "filtered", "backend", "documents", "k")
    }
    assert tuple(found["metrics"]) == METRICS
    assert (found["documents"], found["k"], found["without_reciprocal_pairs"]) == (3, 100, None)
    assert all(math.isfinite(value) for value in found["metrics"].values())
    assert found["backend"].split()[0] in ("haste", "xclib")


def test_ties_stay_in_the_order_given():
    one = evaluate(IDS, np.zeros(IDS.shape), TRUTH, WEIGHTS, FREQUENCY)
    assert one["metrics"] == measured(IDS, TRUTH)["metrics"]
    other = ids_of([1, 2, 0, 3], [0, 1], [3])
    assert evaluate(other, np.zeros(IDS.shape), TRUTH, WEIGHTS, FREQUENCY)["metrics"]["P@1"] == 0


def test_a_document_without_predictions_counts_as_zero():
    found = measured(ids_of([], [1]), truth_of({0}, {1}))["metrics"]
    assert (found["P@1"], found["nDCG@5"], found["R@10"]) == (50.0, 50.0, 50.0)
    assert found["PSP@1"] == pytest.approx(100 * 3 / 5)


def test_stored_zeros_and_counts_above_one_are_not_weights():
    truth = sp.csr_matrix((np.array([3.0, 0.0]), ([0, 0], [2, 1])), shape=(1, 5))
    found = measured(ids_of([1, 2]), truth)["metrics"]
    assert (found["P@1"], found["P@5"], found["R@10"]) == (0.0, 20.0, 100.0)


def test_quick_metrics_are_those_of_evaluate():
    whole = measured(IDS, TRUTH)["metrics"]
    quick = quick_metrics(IDS[:, :5], TRUTH, WEIGHTS)
    assert quick == pytest.approx({name: whole[name] for name in ("P@1", "P@5", "PSP@5")}, abs=1e-9)


def test_without_reciprocal_pairs():
    # document 0 loses positive 2 and its prediction, so label 0 leads; document 1 loses its only
    # positive and, like document 2 which has none, leaves the mean
    ids = ids_of([2, 0, 1, 3], [0, 1], [3])
    reciprocal = truth_of({2}, {1}, set())
    found = measured(ids, TRUTH, reciprocal=reciprocal)
    assert found["without_reciprocal_pairs"] == pytest.approx(
        {"P@1": 100.0, "P@3": 100 / 3, "P@5": 20.0}
    )
    assert found["metrics"] == measured(ids, TRUTH)["metrics"]


def test_without_reciprocal_pairs_is_none_when_no_document_is_left():
    assert measured(IDS, TRUTH, reciprocal=TRUTH)["without_reciprocal_pairs"] is None


def test_filtered_pairs_leave_the_predictions_and_not_the_truth():
    # documents 0 and 2 lose their first prediction, document 1 its second; 3 is no positive of 2
    ids = ids_of([2, 0, 1, 3], [1, 0], [3, 0])
    reciprocal = truth_of({2}, {0}, {3})
    found = evaluate(ids, falling(ids), TRUTH, WEIGHTS, FREQUENCY, reciprocal, filtered=True)
    moved = ids_of([0, 1, 3], [1], [0])
    expected = measured(moved, TRUTH)
    assert found["metrics"] == expected["metrics"]
    assert found["deciles"] == expected["deciles"]
    assert (found["filtered"], expected["filtered"]) == (True, False)


def naive(name: str, ids: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    """The definitions, a document at a time."""
    kind, k = name.split("@")[0], int(name.split("@")[1])
    weighted = kind.startswith("PS")
    reached, ideals = [], []
    for row, positive in zip(ids, truth, strict=True):
        labels = {int(label) for label in np.flatnonzero(positive)}
        value = {label: float(weights[label]) if weighted else 1.0 for label in labels}
        discount = [1 / math.log2(i + 2) if "DCG" in kind else 1.0 for i in range(k)]
        gain = sum(
            value.get(int(label), 0.0) * discount[i]
            for i, label in enumerate(row[:k])
            if label >= 0
        )
        best = sorted(value.values(), reverse=True)[:k]
        ideal = sum(weight * discount[i] for i, weight in enumerate(best))
        if "DCG" in kind:
            norm = sum(discount[: min(k, len(labels))]) or 1.0
        elif kind == "R":
            norm = len(labels) or 1.0
        else:
            norm = k
        reached.append(gain / norm)
        ideals.append(ideal / norm)
    mean = sum(reached) / len(reached)
    return 100 * (mean / (sum(ideals) / len(ideals)) if weighted else mean)


@st.composite
def problems(draw):
    labels = draw(st.integers(2, 12))
    documents = draw(st.integers(1, 8))
    truth = np.array(
        draw(
            st.lists(
                st.lists(st.booleans(), min_size=labels, max_size=labels),
                min_size=documents,
                max_size=documents,
            )
        )
    )
    truth[0, 0] = True
    rows = [
        draw(st.permutations(range(labels)))[: draw(st.integers(0, labels))]
        for _ in range(documents)
    ]
    weights = np.array(draw(st.lists(st.floats(1, 50), min_size=labels, max_size=labels)))
    return ids_of(*rows), truth, weights


@settings(max_examples=60, deadline=None)
@given(problems())
def test_all_metrics_equal_a_naive_reference(problem):
    ids, truth, weights = problem
    sparse = sp.csr_matrix(truth)
    frequency = np.arange(1, truth.shape[1] + 1)
    found = evaluate(ids, falling(ids), sparse, weights, frequency)
    for name in METRICS:
        expected = naive(name, ids, truth, weights)
        assert found["metrics"][name] == pytest.approx(expected, abs=XCLIB_ROUNDING)
        assert per_document(name, ids, sparse, weights).mean() == pytest.approx(expected, abs=1e-8)
    for k in (1, 3, 5):
        total = sum(row[f"P@{k}"] for row in found["deciles"])
        assert total == pytest.approx(found["metrics"][f"P@{k}"], abs=1e-8)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (ids_of([0]), "1 rows, but the truth has 3 documents"),
        (ids_of([0], [1], [5]), "label ids run from -1 to 5, but there are 5 labels"),
        (ids_of([-2], [1], [2]), "label ids run from -2 to 2"),
        (ids_of([0], [1, 1], [2]), "row 1 has a label twice"),
        (ids_of([0], [1], [-1, 2]), "row 2 has a label after -1"),
        (ids_of([0], [1], [2], k=10), "10 labels a document, but 100 are needed"),
        (ids_of([0], [1], [2]).astype(np.float32), r"expected whole label ids \[N, k\]"),
    ],
)
def test_bad_predictions_are_refused(ids, message):
    with pytest.raises(DataError, match=message):
        evaluate(ids, np.zeros(ids.shape), TRUTH, WEIGHTS, FREQUENCY)


def test_scores_out_of_order_or_not_a_number_are_refused():
    scores = falling(IDS)
    scores[0, 1] = 1.0
    with pytest.raises(DataError, match="row 0 is not ordered best first"):
        evaluate(IDS, scores, TRUTH, WEIGHTS, FREQUENCY)
    scores[0, 1] = np.nan
    with pytest.raises(DataError, match="row 0 has a score that is not a number"):
        evaluate(IDS, scores, TRUTH, WEIGHTS, FREQUENCY)
    with pytest.raises(DataError, match=r"ids are \[3, 100\], scores \[3, 99\]"):
        evaluate(IDS, falling(IDS)[:, :99], TRUTH, WEIGHTS, FREQUENCY)


def test_a_truth_without_anything_is_refused():
    with pytest.raises(DataError, match="none of the 2 documents has a label"):
        measured(ids_of([0], [1]), truth_of(set(), set()))
    with pytest.raises(DataError, match="no documents"):
        quick_metrics(np.zeros((0, 5), dtype=np.int32), sp.csr_matrix((0, 5)), WEIGHTS)
