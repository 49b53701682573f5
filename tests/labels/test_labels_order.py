import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haste.errors import DataError
from haste.labels.order import LabelOrder


def order(labels, head=0, group_size=2, cohesion=()):
    return LabelOrder(np.array(labels, np.int32), head, group_size, np.array(cohesion, np.float32))


def test_rank_and_counts_by_hand():
    # rows: head [3], groups [0, 4], [1, 2], [5]
    made = order([3, 0, 4, 1, 2, 5], head=1)
    assert (made.n_labels, made.n_tail, made.n_groups) == (6, 5, 3)
    assert made.row_of_label.tolist() == [1, 3, 4, 0, 2, 5]
    assert made.row_of_label.dtype == np.int32


def test_clusters_by_hand():
    clusters = order([3, 0, 4, 1, 2]).clusters()
    assert clusters.tolist() == [0, 1, 2, 0, 1]
    assert clusters.dtype == np.int32


@given(st.permutations(range(9)), st.integers(0, 9), st.integers(1, 12))
def test_rank_inverts_labels(labels, head, group_size):
    made = order(labels, head, group_size)
    assert made.labels[made.row_of_label].tolist() == list(range(9))
    assert made.n_groups * group_size >= made.n_tail > (made.n_groups - 1) * group_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 0, 1]}, r"not a permutation of 0\.\.2"),
        ({"labels": [1, 2, 3]}, r"not a permutation of 0\.\.2"),
        ({"labels": []}, r"shape \[0\]"),
        ({"labels": [0, 1], "head": 3}, "head is 3; it must lie between 0 and the 2 labels"),
        ({"labels": [0, 1], "head": -1}, "head is -1"),
        ({"labels": [0, 1], "group_size": 0}, "group_size is 0"),
        ({"labels": [0, 1, 2], "cohesion": [0.5]}, r"cohesion has shape \[1\].*2 tail groups"),
        ({"labels": [0, 1], "cohesion": [np.nan]}, "not finite"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(DataError, match=message):
        order(**arguments)


def test_save_and_load(tmp_path):
    made = order([3, 0, 4, 1, 2, 5], head=1, cohesion=[0.5, 0.25, 1.0])
    made.save(tmp_path / "order.npz")
    loaded = LabelOrder.load(tmp_path / "order.npz")
    assert loaded.labels.tolist() == made.labels.tolist()
    assert loaded.cohesion.tolist() == [0.5, 0.25, 1.0]
    assert (loaded.head, loaded.group_size) == (1, 2)
    assert loaded.labels.dtype == np.int32


def test_load_names_the_file(tmp_path):
    path = tmp_path / "order.npz"
    with pytest.raises(DataError, match=r"order\.npz: no such file"):
        LabelOrder.load(path)
    np.savez(path, labels=np.arange(3))
    with pytest.raises(DataError, match=r"order\.npz: not a label order .*head"):
        LabelOrder.load(path)
    np.savez(path, labels=np.array([0, 2]), head=0, group_size=16, cohesion=np.empty(0))
    with pytest.raises(DataError, match=r"order\.npz: .*not a permutation.*run haste group again"):
        LabelOrder.load(path)
