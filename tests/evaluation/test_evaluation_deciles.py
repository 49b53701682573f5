from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from haste.evaluation.deciles import decile_rows, label_deciles


def test_tenths_run_from_frequent_to_rare_with_ties_by_id():
    frequency = np.array([1, 50, 3, 3, 3, 3, 3, 3, 3, 40, 0, 2])
    # 11 labels are seen: the first tenth has two, the others one; label 10 is unseen
    assert label_deciles(frequency).tolist() == [10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 9]


def test_contributions_by_hand():
    frequency = np.array([*range(20, 0, -1), 0])  # two labels a decile, the last column unseen
    truth = np.zeros((2, 21))
    truth[0, [0, 1, 5, 20]] = 1
    truth[1, [19, 0]] = 1
    ids = np.array([[0, 2, 5, 1, -1, -1], [19, 3, 4, 5, 6, 0]])
    rows = decile_rows(ids, sp.csr_matrix(truth), frequency, (1, 3, 5))
    assert [row["decile"] for row in rows] == list(range(1, 11))
    assert [rows[0][f"P@{k}"] for k in (1, 3, 5)] == pytest.approx([50, 100 / 6, 20])
    assert [rows[2][f"P@{k}"] for k in (1, 3, 5)] == pytest.approx([0, 100 / 6, 10])
    assert [rows[9][f"P@{k}"] for k in (1, 3, 5)] == pytest.approx([50, 100 / 6, 10])
    assert [rows[i]["recall"] for i in (0, 2, 9)] == [100.0, 100.0, 100.0]
    assert rows[1]["recall"] is None, "a decile without positives"
    assert sum(row["P@3"] for row in rows) == pytest.approx(100 * 3 / 6)


def test_recall_counts_what_is_missed():
    truth = sp.csr_matrix(np.eye(2, 10))
    rows = decile_rows(np.array([[5, 0], [5, 6]]), truth, np.arange(10, 0, -1), (1,))
    assert (rows[0]["recall"], rows[1]["recall"]) == (100.0, 0.0)


def test_fewer_labels_than_deciles():
    rows = decile_rows(
        np.array([[0]]), sp.csr_matrix(np.array([[1.0, 0.0]])), np.array([2, 1]), (1,)
    )
    assert [row["P@1"] for row in rows] == [100.0] + [0.0] * 9
