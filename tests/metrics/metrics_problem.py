"""A fixed evaluation problem, made by integer arithmetic alone so that no library version changes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

DOCUMENTS, LABELS, EXTRA, K = 80, 150, 10, 100
TRAIN_DOCUMENTS, A, B = 500, 0.55, 1.5


@dataclass(frozen=True)
class Problem:
    ids: np.ndarray
    scores: np.ndarray
    truth: sp.csr_matrix
    counts: np.ndarray


def numbers(seed: int) -> Iterator[int]:
    """A linear congruential generator's high bits."""
    state = seed
    while True:
        state = (state * 1103515245 + 12345) % 2**31
        yield state >> 8


def problem(ties: bool) -> Problem:
    """Empty rows of truth, unseen labels in it, 0 to 100 predictions a document, ties on demand."""
    draw = numbers(7)
    counts = [1 + 200 // (label + 1) for label in range(LABELS)] + [0] * EXTRA
    truth = np.zeros((DOCUMENTS, LABELS + EXTRA))
    ids = np.full((DOCUMENTS, K), -1, dtype=np.int32)
    scores = np.full((DOCUMENTS, K), -1.0, dtype=np.float32)
    for i in range(DOCUMENTS):
        positives = 0 if i % 9 == 4 else 1 + next(draw) % 12
        for _ in range(positives):
            truth[i, next(draw) % (LABELS + EXTRA)] = 1
        many = (0, 1, 3, 4, 7, 40, K, K)[next(draw) % 8]
        values = {}
        while len(values) < many:
            # half of the tries aim at a positive, or precision would be near 0
            candidates = np.flatnonzero(truth[i, :LABELS])
            aim = candidates.size and next(draw) % 2
            label = int(candidates[next(draw) % candidates.size]) if aim else next(draw) % LABELS
            values.setdefault(label, 1 + next(draw) % (6 if ties else 10**6))
        ranked = sorted(values.items(), key=lambda pair: (-pair[1], pair[0] * 37 % LABELS))
        if not ties:
            assert len(set(values.values())) == len(values)
        for place, (label, score) in enumerate(ranked):
            ids[i, place], scores[i, place] = label, score
    return Problem(ids, scores, sp.csr_matrix(truth), np.array(counts, dtype=np.int64))
