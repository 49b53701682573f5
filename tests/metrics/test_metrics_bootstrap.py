from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from haste.errors import DataError
from haste.metrics.bootstrap import paired_bootstrap


def test_a_constant_difference_has_no_spread():
    values = np.arange(50.0)
    assert paired_bootstrap(values + 2, values, n=100) == pytest.approx((2.0, 2.0, 2.0))


def test_the_interval_is_that_of_the_mean():
    # 400 differences of +-1: the mean's standard error is 1 / 20, the 95% interval +-1.96 of it
    signs = np.where(np.arange(400) % 2 == 0, 1.0, -1.0)
    found = paired_bootstrap(signs + 0.5, np.zeros(400), n=4000, seed=3)
    assert found.difference == 0.5
    assert found.low == pytest.approx(0.5 - 1.96 / 20, abs=0.01)
    assert found.high == pytest.approx(0.5 + 1.96 / 20, abs=0.01)


def test_documents_are_paired():
    rng = np.random.default_rng(0)
    hard = rng.random(500) * 100
    found = paired_bootstrap(hard + rng.random(500), hard, n=500)
    assert found.high - found.low < 0.2, "what the documents have in common should cancel"


def test_a_seed_repeats():
    a, b = np.arange(20.0), np.arange(20.0)[::-1]
    assert paired_bootstrap(a, b, seed=1) == paired_bootstrap(a, b, seed=1)
    assert paired_bootstrap(a, b, seed=1) != paired_bootstrap(a, b, seed=2)


def test_seeds_by_hand():
    # the same on every document, so only seeds are drawn: a's mean is 1, 2 or 3 (1/4, 1/2, 1/4)
    a, b = np.repeat([[1.0], [3.0]], 5, axis=1), np.repeat([[0.0], [2.0]], 5, axis=1)
    assert paired_bootstrap(a, np.zeros(5)) == (2.0, 1.0, 3.0)
    # each seed is 1 above its partner
    assert paired_bootstrap(a, b, paired_seeds=True) == (1.0, 1.0, 1.0)
    # drawn apart, 1 - 2 and 3 - 0 come once in 16 each
    assert paired_bootstrap(a, b) == (1.0, -1.0, 3.0)


METRIC = arrays(np.float64, st.tuples(st.integers(1, 4), st.just(12)), elements=st.floats(-9, 9))


@settings(max_examples=30, deadline=None)
@given(METRIC, METRIC, st.integers(0, 9))
def test_one_seed_is_the_bootstrap_over_documents_and_twins_add_nothing(a, b, seed):
    found = paired_bootstrap(a, b, n=50, seed=seed)
    assert found.difference == pytest.approx(a.mean() - b.mean(), abs=1e-9)
    # equal seeds have no spread between them: what is left is that of the documents
    rng = np.random.default_rng(seed)
    one = paired_bootstrap(a[0], b[0], n=50, seed=seed)
    differences = a[0] - b[0]
    means = [differences[rng.integers(0, 12, 12)].mean() for _ in range(50)]
    assert one[1:] == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-9)
    same = a[0] + np.zeros((3, 12)), b[0] + np.zeros((3, 12))
    twins = paired_bootstrap(*same, n=50, seed=seed, paired_seeds=True)
    assert twins.low >= differences.min() - 1e-9
    assert twins.high <= differences.max() + 1e-9


def test_seeds_that_differ_widen_the_interval():
    documents = np.random.default_rng(0).random(300) * 10
    alike, apart = documents + np.zeros((3, 1)), documents + np.array([[-5.0], [0.0], [5.0]])
    narrow, wide = (paired_bootstrap(side, np.zeros(300)) for side in (alike, apart))
    assert narrow.difference == pytest.approx(wide.difference)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_bad_input_is_refused():
    with pytest.raises(
        DataError, match=r"\[1, 3\] and \[1, 2\] values; both methods need one value"
    ):
        paired_bootstrap(np.zeros(3), np.zeros(2))
    with pytest.raises(DataError, match="as many seeds where these are paired"):
        paired_bootstrap(np.zeros((2, 3)), np.zeros(3), paired_seeds=True)
    with pytest.raises(DataError, match="not a finite number"):
        paired_bootstrap(np.array([np.nan]), np.zeros(1))
