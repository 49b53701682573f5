"""Writes golden_xclib.json from pyxclib itself: python golden_xclib.py COMMIT (of the installed xclib).

xclib is called as its users call it, not through haste. Its ideal and its cut of a score matrix are
its own too where scores are distinct (ties are cut arbitrarily there, so those go in as ranked ids).
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from metrics_problem import EXTRA, LABELS, TRAIN_DOCUMENTS, A, B, K, Problem, problem


def score_matrix(made: Problem) -> sp.csr_matrix:
    rows, places = np.nonzero(made.ids >= 0)
    entries = (made.scores[rows, places], (rows, made.ids[rows, places]))
    return sp.csr_matrix(entries, shape=made.truth.shape)


def propensities() -> np.ndarray:
    """xclib's own, from a training matrix with the problem's counts."""
    from xclib.evaluation.xc_metrics import compute_inv_propesity

    counts = problem(ties=True).counts
    column = np.repeat(np.arange(LABELS + EXTRA), counts)
    row = np.concatenate([np.arange(count) for count in counts])
    train = sp.csr_matrix(
        (np.ones(len(row)), (row, column)), shape=(TRAIN_DOCUMENTS, LABELS + EXTRA)
    )
    return compute_inv_propesity(train, A, B)


def curves(ties: bool) -> dict[str, list[float]]:
    from xclib.evaluation import xc_metrics as library

    made, weights = problem(ties), propensities()
    ranked = np.where(made.ids < 0, LABELS + EXTRA, made.ids)
    predicted = ranked if ties else score_matrix(made)
    found = {
        "P": library.precision(predicted, made.truth, k=5, sorted=ties),
        "PSP": library.psprecision(predicted, made.truth, weights, k=5, sorted=ties),
        "nDCG": library.ndcg(predicted, made.truth, k=5, sorted=ties),
        "PSnDCG": library.psndcg(predicted, made.truth, weights, k=5, sorted=ties),
        "R": library.recall(predicted, made.truth, k=K, sorted=ties),
    }
    return {name: [float(value) for value in curve] for name, curve in found.items()}


if __name__ == "__main__":
    golden = {
        "commit": sys.argv[1],
        "version": importlib.metadata.version("xclib"),
        "inverse_propensity": [float(value) for value in propensities()],
        "ties": curves(ties=True),
        "distinct": curves(ties=False),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(golden, indent=1) + "\n")
