from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp

from haste.errors import ConfigError, DataError
from haste.metrics.propensity import inverse_propensity


def test_values_by_hand():
    # with A = B = 1 the formula is 1 + 2 (ln N - 1) / (n + 1)
    found = inverse_propensity(np.array([0, 1, 9]), 100, 1.0, 1.0)
    c = (math.log(100) - 1) * 2
    assert found == pytest.approx([1 + c, 1 + c / 2, 1 + c / 10])
    assert found.dtype == np.float64


def test_an_unseen_label_weighs_most_and_is_finite():
    found = inverse_propensity(np.array([0, 1, 5, 1000]), 1000, 0.55, 1.5)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()
    assert (found >= 1).all()


@pytest.mark.parametrize(("a", "b"), [(0.55, 1.5), (0.6, 2.6), (0.5, 0.4)])
def test_napkinxc_agrees(a, b):
    from napkinxc.metrics import Jain_et_al_inverse_propensity

    dense = np.arange(60).reshape(12, 5) % 7 < np.array([1, 2, 3, 0, 7])
    expected = Jain_et_al_inverse_propensity(sp.csr_matrix(dense), A=a, B=b)
    np.testing.assert_allclose(inverse_propensity(dense.sum(axis=0), 12, a, b), expected)


def test_impossible_input_is_refused():
    for a, b in ((0.55, 0), (float("nan"), 1.5), (0.55, float("inf"))):
        with pytest.raises(
            ConfigError, match=rf"A = {a}, B = {b}; both must be finite and above 0"
        ):
            inverse_propensity(np.array([1]), 10, a, b)
    with pytest.raises(DataError, match="2 training documents; the model needs at least 3"):
        inverse_propensity(np.array([1]), 2, 0.55, 1.5)
    with pytest.raises(DataError, match="run from 1 to 11, but there are 10 training documents"):
        inverse_propensity(np.array([1, 11]), 10, 0.55, 1.5)
