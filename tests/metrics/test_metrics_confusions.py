import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from haste.errors import DataError
from haste.labels.order import LabelOrder
from haste.metrics.confusions import group_confusions, groups_of

# labels 0 .. 6, the last beyond the order; head 5; groups {1, 3}, {0, 4}, {2}
ORDER = LabelOrder(np.array([5, 1, 3, 0, 4, 2], np.int32), head=1, group_size=2)
GROUPS = groups_of(ORDER, 7)


def truth(*rows):
    matrix = np.zeros((len(rows), 7))
    for row, labels in zip(matrix, rows, strict=True):
        row[list(labels)] = 1
    return sp.csr_matrix(matrix)


def test_groups_of_the_tail():
    assert GROUPS.tolist() == [1, 0, 2, 0, 1, -1, -1]


def test_confusions_by_hand():
    ids = np.array(
        [
            [3, 1, 0],  # 3 is wrong beside the right 1; 0 is in a group without a right label
            [5, 6, 2],  # head and unseen labels have no group, although 5 and 6 are right
            [0, 4, 1],  # right ones of one group confuse nobody
            [4, -1, -1],
        ]
    )
    found = group_confusions(ids, truth([1], [5, 6], [0, 4], [0]), GROUPS, 3)
    assert found == pytest.approx([100 / 3, 0, 0, 100 / 3])
    assert group_confusions(ids, truth([1], [5, 6], [0, 4], [0]), GROUPS, 1).tolist() == [
        100,
        0,
        0,
        100,
    ]


@given(st.integers(0, 2**31 - 1))
def test_confusions_are_wrong_predictions(seed):
    random = np.random.default_rng(seed)
    right = sp.csr_matrix((random.random((6, 7)) < 0.3).astype(float))
    right[0, 0] = 1
    ids = np.argsort(random.random((6, 7)), axis=1)[:, :4]
    found = group_confusions(ids, right, GROUPS, 4)
    dense = right.toarray()
    for row, mine in zip(range(6), found, strict=True):
        wrong = [label for label in ids[row] if not dense[row, label]]
        shared = [
            label
            for label in wrong
            if GROUPS[label] >= 0
            and any(GROUPS[label] == GROUPS[other] for other in np.flatnonzero(dense[row]))
        ]
        assert mine == pytest.approx(100 * len(shared) / 4)


def test_predictions_of_other_labels_are_refused():
    with pytest.raises(DataError, match="label ids run from 0 to 9"):
        group_confusions(np.array([[0, 9]]), truth([1]), GROUPS, 2)
