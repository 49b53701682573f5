"""Whether runs have converged, judged by the validation split.

The training loss is no judge: with millions of weights a label it falls for as long as one trains.

The late gain of one run has the noise of its validation scores. So the seeds of a method are judged together,
by the mean of their gains, whose noise falls with their number. If each of them had to converge, the chance
that one of them misses the bound would grow with every seed, although more is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from haste.metrics.names import VALIDATED

PATIENCE = 0.2
"""share of the epochs, at their end, over which a run may gain little"""
MAX_GAIN = 0.3
"""points that a converged run gains at most in them. Less than half the standard error of P@1 on WordNet-104K's
validation split; of its 52 trials of 50 epochs one gains more, of the 55 trials of 20 epochs 30 do"""
CONVERGED_NOTE = (
    f"Converged: over the last {PATIENCE:.0%} of the epochs the best mean of {', '.join(VALIDATED)} on "
    f"validation rises by at most {MAX_GAIN:g} points above the best before (late gain), in the mean of a "
    "row's seeds. The learning rate ends at 0, so this says that the schedule has nothing left to give, "
    "not that a longer one would not."
)


def late_gain(history: Mapping[str, np.ndarray]) -> float:
    """Points by which the best validation score of the last epochs exceeds the best before them.

    The score is the mean of `VALIDATED`, which chooses among trials too. NaN where one of the two parts
    has no evaluation.

    Args:
        history: columns of history.csv, float64 [epochs]; NaN where an epoch was not evaluated.
    """
    score = np.mean([history[name] for name in VALIDATED], axis=0)
    start = len(score) - math.ceil(PATIENCE * len(score))
    before, after = (part[np.isfinite(part)] for part in (score[:start], score[start:]))
    return float(after.max() - before.max()) if before.size and after.size else math.nan


def has_converged(gain: float) -> bool:
    """Whether a late gain, of a run or in the mean of seeds, is at most `MAX_GAIN`; not where it is unknown."""
    return gain <= MAX_GAIN
