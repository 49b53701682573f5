"""Dense embeddings in the place of PECOS's sparse features: X.trn.npy beside Y.trn.npz."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from haste.data.readers.base import ROWS, SHORT, SPLITS, Block, default_uids
from haste.data.readers.pecos import Pecos
from haste.data.readers.sparse_rows import same_counts
from haste.errors import DataError
from haste.files import reading


class PecosEmbeddings(Pecos):
    """X.trn.npy and X.tst.npy, [N, D] of any float dtype; with encoder.kind none they are the features."""

    name = "PECOS, dense embeddings"
    has_text = False
    needs = "X.trn.npy, X.tst.npy, Y.trn.npz and Y.tst.npz"

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """See Layout."""
        pairs = ((f"X.{SHORT[split]}.npy", f"Y.{SHORT[split]}.npz") for split in SPLITS)
        return all((folder / name).is_file() for pair in pairs for name in pair)

    @cached_property
    def n_features(self) -> int:
        """See Layout."""
        paths = [self._text_path(split) for split in SPLITS]
        widths = tuple(_opened(path).shape[1] for path in paths)
        return same_counts(*paths, "features", widths)

    def _text_path(self, split: str) -> Path:
        return self.folder / f"X.{SHORT[split]}.npy"

    def _blocks(self, split: str) -> Iterator[Block]:
        labels, path = self._read_labels(split), self._text_path(split)
        embeddings = _opened(path)
        if len(embeddings) != len(labels):
            raise DataError(
                f"{path}: has {len(embeddings)} rows, but {self.path(split)} has {len(labels)}. "
                "They belong to different data sets, or one is damaged."
            )
        for first in range(0, len(labels), ROWS):
            rows = np.arange(first, min(first + ROWS, len(labels)))
            features = csr_of_dense(embeddings[rows])
            if not np.isfinite(features.data).all():
                raise DataError(f"{path}: has a number that is not finite. Replace it.")
            yield Block(default_uids(split, first, len(rows)), None, labels.take(rows), features)


def csr_of_dense(embeddings: np.ndarray) -> sp.csr_matrix:
    """float32 CSR [N, D] of a dense matrix, its zeros stored too."""
    rows, width = embeddings.shape
    columns = np.tile(np.arange(width, dtype=np.int32), rows)
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
