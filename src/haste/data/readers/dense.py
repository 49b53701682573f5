"""Dense embeddings in the place of PECOS's sparse features: X.trn.npy beside Y.trn.npz."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from haste.data.readers.pecos import LABELS, PecosFeatures
from haste.errors import DataError
from haste.files import reading


class PecosEmbeddings(PecosFeatures):
    """X.trn.npy and X.tst.npy, [N, D] of any float dtype; with encoder.kind none they are the features."""

    name = "PECOS, dense embeddings"
    needs = "X.trn.npy, X.tst.npy, Y.trn.npz and Y.tst.npz"
    roles: ClassVar = {"features": ("X.{short}.npy",), "labels": LABELS}

    @cached_property
    def n_features(self) -> int:
        """See Layout."""
        return self.same_count("features", "features", lambda path: _opened(path).shape[1])

    def _read_features(self, path: Path) -> np.ndarray:
        return _opened(path)

    def _part(self, path: Path, features: np.ndarray, rows: slice) -> sp.csr_matrix:
        part = csr_of_dense(features[rows])
        if not np.isfinite(part.data).all():
            raise DataError(f"{path}: has a number that is not finite. Replace it.")
        return part


def csr_of_dense(embeddings: np.ndarray) -> sp.csr_matrix:
    """float32 CSR [N, D] of a dense matrix, its zeros stored too."""
    rows, width = embeddings.shape
    columns = np.tile(np.arange(width, dtype=np.int32), rows)
    # what float32 cannot hold becomes infinite, which callers refuse
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(embeddings, np.float32).ravel()
    bounds = np.arange(rows + 1, dtype=np.int64) * width
    return sp.csr_matrix((values, columns, bounds), shape=(rows, width))


def _opened(path: Path) -> np.ndarray:
    """Memory-mapped [N, D]."""
    with reading(path, "an .npy file of numbers [documents, features]"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise ValueError(f"{array.dtype} {list(array.shape)}")
        return array
