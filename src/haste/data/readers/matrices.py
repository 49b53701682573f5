"""Sparse matrices (.npz, scipy's layout) that are not trusted: numbers only, every index checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from haste.data.readers.base import MOST
from haste.files import reading

EXPECTED = "a sparse matrix, CSR, as scipy.sparse.save_npz writes it"


def read_shape(path: Path) -> tuple[int, int]:
    """Rows and columns, without reading the matrix; raises DataError."""
    with reading(path, EXPECTED), np.load(path, allow_pickle=False) as archive:
        shape = archive["shape"]
        if shape.dtype.kind not in "iu" or shape.shape != (2,):
            raise ValueError("shape must be two whole numbers")
        rows, columns = (int(n) for n in shape)
        if not (0 <= rows <= MOST and 0 <= columns <= MOST):
            raise ValueError(f"its shape is {rows} x {columns}")
        return rows, columns


def read_matrix(path: Path) -> sp.csr_matrix:
    """A float32 CSR matrix with indices in bounds, not necessarily sorted; raises DataError."""
    _, columns = read_shape(path)
    with reading(path, EXPECTED):
        matrix = sp.load_npz(path)
        if matrix.format != "csr":
            raise ValueError(f"its format is {matrix.format}, not csr")
        if len(matrix.indices) and matrix.indices.max() == columns:
            raise ValueError(f"an index is not from 0 to {columns - 1}; does it count from 1?")
        matrix.check_format()
        with np.errstate(over="ignore"):
            matrix = sp.csr_matrix(matrix, dtype=np.float32)
        if not np.isfinite(matrix.data).all():
            raise ValueError("data has a number that is not finite")
        return matrix
