"""A corpus of a test; what the test does not care about is made up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.data.corpus import (
    EVALUATED,
    Corpus,
    document_table,
    label_table,
    load_corpus,
    write_corpus,
)

DESCRIBED = {
    "dataset": "tiny",
    "propensity_a": 0.55,
    "propensity_b": 1.5,
    "opaque_labels": True,
    "max_len": 12,
    "licence": "free",
    "source": {},
}


def write_small_corpus(
    folder: Path,
    positives: Mapping[str, Any],
    *,
    texts: Mapping[str, Sequence[str | None]] | None = None,
    uids: Mapping[str, Sequence[str]] | None = None,
    reciprocal: Mapping[str, sp.csr_matrix] | None = None,
    features: Mapping[str, sp.csr_matrix] | None = None,
    names: Sequence[str] | None = None,
    **described: Any,
) -> Corpus:
    """By split, `positives` are anything [N, L + E] of ones, the labels of training documents first."""
    matrices = {split: sp.csr_matrix(rows, dtype=np.float32) for split, rows in positives.items()}
    sizes = {split: matrix.shape[0] for split, matrix in matrices.items()}
    texts = texts or {split: ["some words here"] * size for split, size in sizes.items()}
    uids = uids or {split: [f"{split}{i}" for i in range(size)] for split, size in sizes.items()}
    names = names or [f"label {i}" for i in range(matrices["train"].shape[1])]
    write_corpus(
        folder,
        {split: document_table(uids[split], texts[split]) for split in sizes},
        matrices,
        reciprocal or {split: sp.csr_matrix(matrices[split].shape) for split in EVALUATED},
        label_table(names, names, [None] * len(names), len(np.unique(matrices["train"].indices))),
        features,
        **{**DESCRIBED, **described},
    )
    return load_corpus(folder)


def one_hot(rows: Sequence[Sequence[int]], width: int) -> sp.csr_matrix:
    """float32 [N, width] of ones at the columns of each row."""
    dense = np.zeros((len(rows), width), np.float32)
    for row, columns in enumerate(rows):
        dense[row, list(columns)] = 1
    return sp.csr_matrix(dense)
