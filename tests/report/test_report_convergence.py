import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haste.report.convergence import MAX_GAIN, has_converged, late_gain


def history(precision, others=30.0):
    precision = np.asarray(precision, np.float64)
    rest = np.where(np.isnan(precision), np.nan, others)
    return {"P@1": precision, "P@5": rest, "PSP@5": rest}


NAN = np.nan


@pytest.mark.parametrize(
    ("precision", "gain"),
    [
        # the last two of ten against the best of the eight before, a third of P@1's points
        ([10, 20, 30, 40, 50, 51, 52, 54, 57, 56], 1.0),
        # what is lost at the end is no gain
        ([10, 20, 30, 40, 50, 60, 52, 54, 57, 56], -1.0),
        # evaluated every fifth epoch only
        ([NAN] * 4 + [40] + [NAN] * 4 + [43], 1.0),
        # the window has one epoch at least
        ([40, 43], 1.0),
    ],
)
def test_late_gain_by_hand(precision, gain):
    assert late_gain(history(precision)) == pytest.approx(gain)


@pytest.mark.parametrize("precision", [[50.0], [NAN] * 9 + [50.0], [50.0] * 4 + [NAN], [NAN] * 5])
def test_what_was_not_evaluated_has_not_converged(precision):
    assert np.isnan(late_gain(history(precision)))
    assert not has_converged(late_gain(history(precision)))


@given(st.lists(st.floats(0, 100), min_size=2, max_size=30), st.floats(-20, 20))
def test_the_gain_is_of_differences(precision, offset):
    precision = np.array(precision)
    expected = late_gain(history(precision))
    assert late_gain(history(precision + offset, 30.0 + offset)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gain", "converged"), [(-1.0, True), (MAX_GAIN, True), (MAX_GAIN + 0.01, False)]
)
def test_a_little_gain_is_converged(gain, converged):
    assert has_converged(gain) is converged
