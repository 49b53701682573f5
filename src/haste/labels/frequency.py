"""How often each label occurs; the only place in the project that counts labels."""

from __future__ import annotations

import functools

import numpy as np
import scipy.sparse as sp

from haste.checksums import check_file, described_sums
from haste.files import read_csr
from haste.paths import CorpusDir

MADE_BY = "haste corpus"
SPLITS_OF = {"train": ("train",), "train_and_test": ("train", "test")}


def label_frequencies(corpus: CorpusDir, over: str = "train") -> np.ndarray:
    """Documents that have each label: int64 [L + E].

    The last E entries are labels without a training document: 0 when counted over `train`.
    `over="train_and_test"` is what the released code does. It leaks the test set into the head, the
    groups and the propensities; it exists so that the leak's effect can be measured.
    Raises DataError for a missing or damaged label matrix.
    """
    paths = [corpus.positives(split) for split in SPLITS_OF[over]]
    sums = described_sums(corpus.info, MADE_BY)
    for path in paths:
        check_file(path, sums, MADE_BY)
    counts = (count_labels(read_csr(path, MADE_BY)) for path in paths)
    return functools.reduce(np.add, counts)


def count_labels(positives: sp.csr_matrix) -> np.ndarray:
    """Documents that have each label: int64 [L + E], of CSR [N, L + E]."""
    return np.bincount(positives.indices, minlength=positives.shape[1]).astype(np.int64)
