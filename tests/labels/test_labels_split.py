"""The head-tail split."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haste.labels.split import head_size, most_frequent_first, split_head_tail


def test_most_frequent_first_breaks_ties_by_id():
    assert most_frequent_first(np.array([1, 5, 2, 5, 2])).tolist() == [1, 3, 2, 4, 0]


@pytest.mark.parametrize(
    ("n_labels", "ratio", "group_size", "expected"),
    [
        (100, 0.0, 16, 0),
        (100, 0.1, 16, 16),
        (160, 0.1, 16, 16),
        (161, 0.1, 16, 32),
        (30, 0.1, 1, 3),
        (30, 0.01, 1, 1),
        (20, 0.9, 16, 20),
        # 0.07 * 100 is 7.000000000000001
        (100, 0.07, 1, 7),
    ],
)
def test_head_size(n_labels, ratio, group_size, expected):
    assert head_size(n_labels, ratio, group_size) == expected


def test_split_by_hand():
    head, tail = split_head_tail(np.array([3, 9, 1, 3, 3, 1]), 0.2, 2)
    assert head.tolist() == [1, 0]
    assert tail.tolist() == [3, 4, 2, 5]
    assert head.dtype == tail.dtype == np.int32


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=80),
    st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.9]),
    st.sampled_from([1, 4, 16]),
)
def test_split_invariants(frequencies, ratio, group_size):
    counts = np.array(frequencies)
    head, tail = split_head_tail(counts, ratio, group_size)
    both = np.concatenate([head, tail])
    assert sorted(both.tolist()) == list(range(len(counts)))
    assert len(head) >= Fraction(str(ratio)) * len(counts)
    assert len(head) % group_size == 0 or len(tail) == 0
    keys = [(-counts[i], i) for i in both]
    assert keys == sorted(keys)
