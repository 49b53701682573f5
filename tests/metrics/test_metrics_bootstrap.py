from __future__ import annotations

import numpy as np
import pytest

from haste.errors import ConfigError, DataError
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
    narrow = paired_bootstrap(signs + 0.5, np.zeros(400), n=4000, seed=3, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.674 / 20, abs=0.01)


def test_documents_are_paired():
    rng = np.random.default_rng(0)
    hard = rng.random(500) * 100
    found = paired_bootstrap(hard + rng.random(500), hard, n=500)
    assert found.high - found.low < 0.2, "what the documents have in common should cancel"


def test_a_seed_repeats():
    a, b = np.arange(20.0), np.arange(20.0)[::-1]
    assert paired_bootstrap(a, b, seed=1) == paired_bootstrap(a, b, seed=1)
    assert paired_bootstrap(a, b, seed=1) != paired_bootstrap(a, b, seed=2)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match=r"\[3\] and \[2\] values; both methods need one value"):
        paired_bootstrap(np.zeros(3), np.zeros(2))
    with pytest.raises(DataError, match="not a finite number"):
        paired_bootstrap(np.array([np.nan]), np.zeros(1))
    with pytest.raises(ConfigError, match=r"n = 0, level = 0\.95"):
        paired_bootstrap(np.zeros(1), np.zeros(1), n=0)
    with pytest.raises(ConfigError, match=r"level = 1\.5"):
        paired_bootstrap(np.zeros(1), np.zeros(1), level=1.5)
