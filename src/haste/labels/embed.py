"""Label embeddings: the mean features of a label's documents, scaled to length 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from haste.checksums import check_beside
from haste.errors import DataError
from haste.files import reading

BLOCK = 65_536
"""labels worked on at once: temporaries are BLOCK x H, whatever L is"""
LENGTH_ERROR = 1e-3
"""how far from 1 the length of an embedding may be"""


def label_embeddings(
    features: np.ndarray, labels: sp.csr_matrix, out: np.ndarray | None = None
) -> np.ndarray:
    """e_l = normalise(mean of h over the documents of l): float32 [L, H], rows of length 1.

    `features`: float32 [N, H], one row a document, perhaps mapped to memory; `labels`: CSR [N, L] of
    ones; `out`: what takes the embeddings instead, float32 of the same shape.
    A label without a document, or whose documents cancel out, gets zeros. Raises DataError when the two
    do not fit together or a feature is not finite.
    """
    if labels.shape[0] != features.shape[0]:
        raise DataError(
            f"label embeddings: features of {features.shape[0]} documents, but the training labels have "
            f"{labels.shape[0]}. The tokens are of another corpus; run haste tokenize again."
        )
    documents = sp.csr_matrix(labels.T, dtype=np.float32)
    shape = (labels.shape[1], features.shape[1])
    embeddings = np.empty(shape, np.float32) if out is None else out
    for start in range(0, len(embeddings), BLOCK):
        # the sum has the direction of the mean
        block = documents[start : start + BLOCK] @ features
        if not np.isfinite(block).all():
            raise DataError(
                "label embeddings: the encoder's features have values that are not finite."
            )
        length = np.linalg.norm(block, axis=1, keepdims=True)
        embeddings[start : start + BLOCK] = block / np.where(length > 0, length, 1)
    return embeddings


def load_embeddings(path: Path | str, n_labels: int) -> np.ndarray:
    """The memory-mapped float32 [L, H] that haste embed wrote, checked block by block.

    Raises DataError when the file is missing or not what was written, is of another number of labels,
    or has a row whose length is neither 1 nor 0.
    """
    check_beside(Path(path), "haste embed")
    with reading(path, "label embeddings (.npy)", "haste embed"):
        embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
    if embeddings.dtype != np.float32 or embeddings.ndim != 2 or len(embeddings) != n_labels:
        raise DataError(
            f"{path}: {embeddings.dtype} {list(embeddings.shape)} is not float32 [{n_labels}, H], one "
            "embedding a label of the corpus; run haste embed again."
        )
    for start in range(0, n_labels, BLOCK):
        lengths = np.linalg.norm(embeddings[start : start + BLOCK], axis=1)
        wrong = ~((np.abs(lengths - 1) < LENGTH_ERROR) | (lengths == 0))
        if wrong.any():
            row = start + int(np.argmax(wrong))
            raise DataError(
                f"{path}: the embedding of label {row} has length {lengths[row - start]:g}, not 1 or 0; "
                "run haste embed again."
            )
    return embeddings
