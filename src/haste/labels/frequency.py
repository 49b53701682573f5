"""How often each label occurs; the only place in the project that counts labels."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def count_labels(positives: sp.csr_matrix) -> np.ndarray:
    """Documents that have each label: int64 [L + E], of CSR [N, L + E]."""
    return np.bincount(positives.indices, minlength=positives.shape[1]).astype(np.int64)
