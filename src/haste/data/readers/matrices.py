"""Sparse matrices (.npz, scipy's layout) that are not trusted: numbers only, every index checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from haste.data.readers.base import MOST
from haste.errors import DataError

ADVICE = "Write it with scipy.sparse.save_npz as a CSR matrix, or replace it by a whole copy."


def read_shape(path: Path) -> tuple[int, int]:
    """Rows and columns, without reading the matrix; raises DataError."""
    with _opened(path) as archive:
        return _shape(archive)


def read_matrix(path: Path) -> sp.csr_matrix:
    """A float32 CSR matrix with indices in bounds, not necessarily sorted; raises DataError."""
    with _opened(path) as archive:
        kind = archive["format"].item()
        if kind not in (b"csr", "csr"):
            raise ValueError(f"its format is {kind!r}, not csr")
        rows, columns = _shape(archive)
        data, indices, indptr = (archive[key] for key in ("data", "indices", "indptr"))
        if (
            data.dtype.kind not in "biuf"
            or indices.dtype.kind not in "iu"
            or indptr.dtype.kind not in "iu"
        ):
            raise ValueError("data, indices and indptr must be numbers")
        if indptr.shape != (rows + 1,) or data.shape != indices.shape or data.ndim != 1:
            raise ValueError("data, indices and indptr do not fit its shape")
        if indptr[0] != 0 or indptr[-1] != len(indices) or (indptr[1:] < indptr[:-1]).any():
            raise ValueError("indptr does not rise from 0 to the number of entries")
        if len(indices) and not (indices.min() >= 0 and indices.max() < columns):
            hint = "; does it count from 1?" if indices.max() == columns else ""
            raise ValueError(f"an index is not from 0 to {columns - 1}{hint}")
        with np.errstate(over="ignore"):
            data = data.astype(np.float32, copy=False)
        if not np.isfinite(data).all():
            raise ValueError("data has a number that is not finite")
        return sp.csr_matrix((data, indices, indptr), shape=(rows, columns))


def _shape(archive: np.lib.npyio.NpzFile) -> tuple[int, int]:
    shape = archive["shape"]
    if shape.dtype.kind not in "iu" or shape.shape != (2,):
        raise ValueError("shape must be two whole numbers")
    rows, columns = (int(n) for n in shape)
    if not (0 <= rows <= MOST and 0 <= columns <= MOST):
        raise ValueError(f"its shape is {rows} x {columns}")
    return rows, columns


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Whatever goes wrong with a damaged archive becomes a DataError that names it."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except Exception as error:
        raise DataError(
            f"{path}: not a sparse matrix ({type(error).__name__}: {error}). {ADVICE}"
        ) from error
