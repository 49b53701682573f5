"""The layout of PECOS: texts one a line, labels (and, without texts, features) as sparse matrices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from haste.data.ragged import Ragged
from haste.data.readers.base import ROWS, Block, Layout, chosen_of_line, default_uids, in_blocks
from haste.data.readers.lines import read_lines, side_by_side
from haste.data.readers.matrices import read_matrix, read_shape
from haste.errors import DataError

LABELS = ("Y.{short}.npz",)


class Pecos(Layout):
    """Y.trn.npz and Y.tst.npz with X.trn.txt and X.tst.txt."""

    name = "PECOS"
    needs = "X.trn.txt, X.tst.txt, Y.trn.npz and Y.tst.npz"
    roles: ClassVar = {"texts": ("X.{short}.txt",), "labels": LABELS}

    @cached_property
    def n_labels(self) -> int:
        """See Layout."""
        return self.same_count("labels", "labels", _width)

    def count(self, split: str) -> int:
        """See Layout."""
        return read_shape(self.path("labels", split))[0]

    def _blocks(self, split: str) -> Iterator[Block]:
        labels, path = self._read_labels(split), self.path("texts", split)
        rows = range(len(labels))
        pairs = side_by_side(rows, read_lines(path), self.path("labels", split), path)
        for first, (chosen, lines) in in_blocks(pairs):
            texts = [chosen_of_line(line, self.text) for line in lines]
            uids = default_uids(split, first, len(texts))
            yield Block(uids, texts, labels.take(np.array(chosen)))

    def _read_labels(self, split: str) -> Ragged:
        path = self.path("labels", split)
        matrix = read_matrix(path)
        if len(matrix.data) and matrix.data.min() < 0:
            raise DataError(
                f"{path}: a label has the value {matrix.data.min():g}; what is not 0 is a label of the "
                "document, and a negative one says nothing. Correct the file."
            )
        matrix.eliminate_zeros()
        return Ragged(matrix.indices, matrix.indptr)


class PecosFeatures(Pecos):
    """The same without texts: sparse features X.trn.npz, or one of the names of tf-idf features."""

    name = "PECOS, features only"
    has_text = False
    needs = "X.trn.tfidf.npz (or X.trn.npz), X.tst.tfidf.npz, Y.trn.npz and Y.tst.npz"
    roles: ClassVar = {
        "features": ("X.{short}.tfidf.npz", "tfidf-attnxml/X.{short}.npz", "X.{short}.npz"),
        "labels": LABELS,
    }

    @cached_property
    def n_features(self) -> int:
        """See Layout."""
        return self.same_count("features", "features", _width)

    def _blocks(self, split: str) -> Iterator[Block]:
        labels, path = self._read_labels(split), self.path("features", split)
        features = self._read_features(path)
        if features.shape[0] != len(labels):
            raise DataError(
                f"{path}: has {features.shape[0]} rows, but {self.path('labels', split)} has {len(labels)}. "
                "They belong to different data sets, or one is damaged."
            )
        for first in range(0, len(labels), ROWS):
            rows = np.arange(first, min(first + ROWS, len(labels)))
            part = self._part(path, features, slice(rows[0], rows[-1] + 1))
            yield Block(default_uids(split, first, len(rows)), None, labels.take(rows), part)

    def _read_features(self, path: Path) -> Any:
        """[N, D] of which rows can be taken."""
        return read_matrix(path)

    def _part(self, path: Path, features: Any, rows: slice) -> sp.csr_matrix:  # noqa: ARG002
        """float32 CSR of some rows of what `_read_features` read from `path`."""
        part = features[rows]
        part.sum_duplicates()
        return part


def _width(path: Path) -> int:
    return read_shape(path)[1]
