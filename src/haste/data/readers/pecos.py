"""The layout of PECOS: texts one a line, labels (and, without texts, features) as sparse matrices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from haste.data.ragged import Ragged
from haste.data.readers.base import (
    ROWS,
    SHORT,
    SPLITS,
    Block,
    Layout,
    chosen_of_line,
    default_uids,
    in_blocks,
)
from haste.data.readers.lines import read_lines, side_by_side
from haste.data.readers.matrices import read_matrix, read_shape
from haste.data.readers.sparse_rows import same_counts
from haste.errors import DataError

FEATURES = ("X.{}.tfidf.npz", "tfidf-attnxml/X.{}.npz", "X.{}.npz")


class Pecos(Layout):
    """Y.trn.npz and Y.tst.npz with X.trn.txt and X.tst.txt."""

    name = "PECOS"
    needs = "X.trn.txt, X.tst.txt, Y.trn.npz and Y.tst.npz"

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """See Layout."""
        return _has_labels(folder) and all(
            (folder / f"X.{SHORT[split]}.txt").is_file() for split in SPLITS
        )

    @cached_property
    def n_labels(self) -> int:
        """See Layout."""
        return _same_width([self.path(split) for split in SPLITS], "labels")

    def count(self, split: str) -> int:
        """See Layout."""
        return read_shape(self.path(split))[0]

    def path(self, split: str) -> Path:
        """See Layout."""
        return self.folder / f"Y.{SHORT[split]}.npz"

    def _files(self) -> list[Path]:
        return [path for s in SPLITS for path in (self._text_path(s), self.path(s))]

    def _text_path(self, split: str) -> Path:
        return self.folder / f"X.{SHORT[split]}.txt"

    def _blocks(self, split: str) -> Iterator[Block]:
        labels = self._read_labels(split)
        path = self._text_path(split)
        pairs = side_by_side(range(len(labels)), read_lines(path), self.path(split), path)
        for first, (rows, lines) in in_blocks(pairs):
            texts = [chosen_of_line(line, self.text) for line in lines]
            yield Block(default_uids(split, first, len(rows)), texts, labels.take(np.array(rows)))

    def _read_labels(self, split: str) -> Ragged:
        path = self.path(split)
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

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """See Layout."""
        return _has_labels(folder) and _features(folder) is not None

    @cached_property
    def n_features(self) -> int:
        """See Layout."""
        return _same_width(list(_features(self.folder).values()), "features")

    def _files(self) -> list[Path]:
        return [*_features(self.folder).values(), *map(self.path, SPLITS)]

    def _blocks(self, split: str) -> Iterator[Block]:
        labels = self._read_labels(split)
        path = _features(self.folder)[split]
        features = read_matrix(path)
        if features.shape[0] != len(labels):
            raise DataError(
                f"{path}: has {features.shape[0]} rows, but {self.path(split)} has {len(labels)}. "
                "They belong to different data sets, or one is damaged."
            )
        for first in range(0, len(labels), ROWS):
            rows = np.arange(first, min(first + ROWS, len(labels)))
            part = features[rows[0] : rows[-1] + 1]
            part.sum_duplicates()
            uids = default_uids(split, first, len(rows))
            yield Block(uids, None, labels.take(rows), part)


def _has_labels(folder: Path) -> bool:
    return all((folder / f"Y.{SHORT[split]}.npz").is_file() for split in SPLITS)


def _features(folder: Path) -> dict[str, Path] | None:
    for pattern in FEATURES:
        paths = {split: folder / pattern.format(SHORT[split]) for split in SPLITS}
        if all(path.is_file() for path in paths.values()):
            return paths
    return None


def _same_width(paths: list[Path], what: str) -> int:
    train, test = paths
    return same_counts(train, test, what, (read_shape(train)[1], read_shape(test)[1]))
