"""Label embeddings from the features of a label's training documents."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from haste.errors import DataError

BLOCK = 65_536
"""labels worked on at once: temporaries are BLOCK x H, whatever L is"""


def label_embeddings(features: np.ndarray, labels: sp.csr_matrix) -> np.ndarray:
    """e_l = normalise(mean of h over the training documents of l): float32 [L, H], rows of length 1.

    `features`: float32 [N, H], one row a training document; `labels`: CSR [N, L] of ones.
    A label without a document, or whose documents cancel out, gets zeros. Raises DataError when the two
    do not fit together or a feature is not finite.
    """
    if labels.shape[0] != features.shape[0]:
        raise DataError(
            f"label embeddings: features of {features.shape[0]} documents, but the training labels have "
            f"{labels.shape[0]}. The tokens are of another corpus; run haste tokenize again."
        )
    documents = sp.csr_matrix(labels.T, dtype=np.float32)
    embeddings = np.empty((labels.shape[1], features.shape[1]), np.float32)
    for start in range(0, len(embeddings), BLOCK):
        # the sum has the direction of the mean
        block = documents[start : start + BLOCK] @ features
        if not np.isfinite(block).all():
            raise DataError(
                "label embeddings: the encoder's features have values that are not finite."
            )
        length = np.linalg.norm(block, axis=1, keepdims=True)
        np.divide(block, np.where(length > 0, length, 1), out=embeddings[start : start + BLOCK])
    return embeddings
