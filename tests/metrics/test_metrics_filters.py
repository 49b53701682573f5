from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from haste.errors import DataError
from haste.metrics.filters import remove_positives, remove_predictions
from haste.metrics.matching import hits


def pairs_of(*rows: list[int], labels: int = 6) -> sp.csr_matrix:
    dense = np.zeros((len(rows), labels))
    for i, row in enumerate(rows):
        dense[i, row] = 1
    return sp.csr_matrix(dense)


def test_the_next_best_move_up_and_the_end_is_padded():
    ids = np.array([[5, 1, 3, 0], [2, 4, -1, -1], [0, 1, 2, 3]])
    found = remove_predictions(ids, pairs_of([5, 3], [4, 0], []))
    assert found.tolist() == [[1, 0, -1, -1], [2, -1, -1, -1], [0, 1, 2, 3]]
    assert ids[0, 0] == 5, "the input is changed"


def test_positives_are_removed_and_the_rest_stay():
    truth = pairs_of([0, 2, 5], [1], [4])
    found = remove_positives(truth, pairs_of([2, 3], [1], []))
    assert found.toarray().tolist() == pairs_of([0, 5], [], [4]).toarray().tolist()
    assert found.nnz == 3
    assert truth.nnz == 5


def test_a_stored_zero_is_not_a_pair():
    zero = sp.csr_matrix((np.array([0.0]), ([0], [5])), shape=(1, 6))
    assert remove_predictions(np.array([[5, 1]]), zero).tolist() == [[5, 1]]
    assert remove_positives(pairs_of([5]), zero).nnz == 1


def test_pairs_of_another_split_are_refused():
    with pytest.raises(
        DataError, match=r"\[2, 6\] documents by labels, but \[1, 6\] are evaluated"
    ):
        remove_predictions(np.array([[5, 1]]), pairs_of([1], [2]))
    with pytest.raises(
        DataError, match=r"\[1, 6\] documents by labels, but \[1, 7\] are evaluated"
    ):
        remove_positives(pairs_of([1], labels=7), pairs_of([1]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_filters_and_hits_equal_sets(seed):
    rng = np.random.default_rng(seed)
    documents, labels, k = (int(n) for n in rng.integers(1, 9, size=3))
    dense = rng.random((documents, labels)) < rng.random()
    ids = np.full((documents, k), -1)
    for row in ids:
        chosen = rng.permutation(labels)[: rng.integers(0, k + 1)]
        row[: chosen.size] = chosen
    pairs = sp.csr_matrix(dense)
    kept = remove_predictions(ids, pairs)
    for i in range(documents):
        gone = set(np.flatnonzero(dense[i]).tolist())
        assert hits(ids, pairs)[i].tolist() == [label in gone for label in ids[i].tolist()]
        expected = [label for label in ids[i].tolist() if label not in gone and label >= 0]
        assert kept[i].tolist() == expected + [-1] * (k - len(expected))
