from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from haste.metrics.deciles import decile_part, decile_rows, label_deciles


def test_a_decile_holds_a_tenth_of_the_positives():
    # 40 positives: one label of 12 (its middle, 6, is in the second tenth), 4 of 4, 6 of 2, one unseen
    frequency = np.array([2, 4, 12, 4, 2, 0, 4, 2, 4, 2, 2, 2])
    # middles: 6 | 14 18 22 26 | 29 31 33 35 37 39, in tenths of 4 positives
    assert label_deciles(frequency).tolist() == [8, 4, 2, 5, 8, 0, 6, 9, 7, 9, 10, 10]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=300))
def test_deciles_are_ordered_and_equal_in_positives(counts):
    frequency = np.array(counts)
    deciles = label_deciles(frequency)
    assert ((deciles == 0) == (frequency == 0)).all()
    for i in range(1, 11):
        inside, later = frequency[deciles == i], frequency[deciles > i]
        assert not (inside.size and later.size) or inside.min() >= later.max()
        assert abs(inside.sum() - frequency.sum() / 10) <= 9


def test_contributions_by_hand():
    frequency = np.array([*[5] * 20, 0])  # two labels a decile, the last column unseen
    truth = np.zeros((2, 21))
    truth[0, [0, 1, 5, 20]] = 1
    truth[1, [19, 0]] = 1
    ids = np.array([[0, 2, 5, 1, -1, -1], [19, 3, 4, 5, 6, 0]])
    rows = decile_rows(ids, sp.csr_matrix(truth), frequency, (1, 3, 5))
    assert [row["decile"] for row in rows] == list(range(1, 11))
    assert [row["labels"] for row in rows] == [2] * 10
    assert [rows[0][f"P@{k}"] for k in (1, 3, 5)] == pytest.approx([50, 100 / 6, 20])
    # by document: of the first five, labels 0, 5 and 1 are right, of which 5 is in the third decile
    part = {i: decile_part(ids, sp.csr_matrix(truth), frequency, 5, i).tolist() for i in (1, 2, 10)}
    assert part == {1: [60.0, 20.0], 2: [20.0, 20.0], 10: [0.0, 20.0]}
    assert [rows[2][f"P@{k}"] for k in (1, 3, 5)] == pytest.approx([0, 100 / 6, 10])
    assert [rows[9][f"P@{k}"] for k in (1, 3, 5)] == pytest.approx([50, 100 / 6, 10])
    assert [rows[i]["recall"] for i in (0, 2, 9)] == [100.0, 100.0, 100.0]
    assert rows[1]["recall"] is None, "a decile without positives"
    assert sum(row["P@3"] for row in rows) == pytest.approx(100 * 3 / 6)


def test_recall_counts_what_is_missed():
    truth = sp.csr_matrix(np.eye(2, 10))
    rows = decile_rows(np.array([[5, 0], [5, 6]]), truth, np.ones(10, dtype=np.int64), (1,))
    assert (rows[0]["recall"], rows[1]["recall"]) == (100.0, 0.0)


def test_fewer_labels_than_deciles():
    truth = sp.csr_matrix(np.array([[1.0, 0.0]]))
    rows = decile_rows(np.array([[0]]), truth, np.array([1, 1]), (1,))
    assert {row["decile"]: row["P@1"] for row in rows if row["labels"]} == {3: 100.0, 8: 0.0}
