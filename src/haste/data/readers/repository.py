"""The layouts of the Extreme Classification Repository with labels in a file of their own, trn_X_Y.txt."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from haste.data.readers.base import (
    SHORT,
    SPLITS,
    Block,
    Layout,
    chosen_of_line,
    default_uids,
    in_blocks,
    label_columns,
    pack_labels,
    take_strings,
)
from haste.data.readers.lines import read_lines, side_by_side, without_blank_end
from haste.data.readers.sparse_rows import (
    feature_matrix,
    parse_row,
    read_header,
    rows_below_header,
    same_counts,
)
from haste.errors import DataError


class _Repository(Layout):
    """trn_X_Y.txt: "N L", then a line "label:1.0 label:1.0 ..." a document."""

    @cached_property
    def n_labels(self) -> int:
        """See Layout."""
        counts = tuple(self._header[split][1] for split in SPLITS)
        return same_counts(*map(self.path, SPLITS), "labels", counts)

    def count(self, split: str) -> int:
        """See Layout."""
        return self._header[split][0]

    @cached_property
    def _header(self) -> dict[str, tuple[int, ...]]:
        names = ("documents", "labels")
        return {split: read_header(self.path(split), names) for split in SPLITS}

    def path(self, split: str) -> Path:
        """See Layout."""
        return self.folder / f"{SHORT[split]}_X_Y.txt"

    def _label_rows(self, split: str) -> Iterator[list[int]]:
        path = self.path(split)
        for number, line in enumerate(rows_below_header(path, self.count(split)), 2):
            ids, values = parse_row(line.split(), self.n_labels, path, number, least=0)
            yield [label for label, value in zip(ids, values, strict=True) if value]


class RepositoryText(_Repository):
    """Texts in trn_X.txt and tst_X.txt, one a line; those of labels in Y.txt, if there is one."""

    name = "XMC repository, text"
    needs = "trn_X.txt, tst_X.txt, trn_X_Y.txt and tst_X_Y.txt"

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """See Layout."""
        return _has(folder, "X", "X_Y")

    def _files(self) -> list[Path]:
        labels = [self._labels_path] if self._labels_path.is_file() else []
        return [*map(self._texts_path, SPLITS), *map(self.path, SPLITS), *labels]

    def _texts_path(self, split: str) -> Path:
        return self.folder / f"{SHORT[split]}_X.txt"

    @property
    def _labels_path(self) -> Path:
        return self.folder / "Y.txt"

    def _blocks(self, split: str) -> Iterator[Block]:
        path = self.path(split)
        texts = self._texts_path(split)
        rows = side_by_side(read_lines(texts), self._label_rows(split), texts, path)
        for first, (lines, labels) in in_blocks(rows):
            yield Block(
                default_uids(split, first, len(lines)),
                [chosen_of_line(line, self.text) for line in lines],
                pack_labels(labels, self.n_labels, path, first + 2),
            )

    def labels(self, ids: np.ndarray) -> pa.Table:
        """See Layout."""
        path = self._labels_path
        table = super().labels(ids)
        if not path.is_file():
            return table
        lines = without_blank_end(read_lines(path), keep=self.n_labels)
        chunks = [
            pa.array([chosen_of_line(line, self.text) for line in lines], pa.large_string())
            for _, (lines,) in in_blocks((line,) for line in lines)
        ]
        texts = pa.chunked_array(chunks, pa.large_string())
        if len(texts) != self.n_labels:
            raise DataError(
                f"{path}: expected {self.n_labels} lines, one a label, found {len(texts)}. Correct "
                "or replace the file."
            )
        texts = take_strings(texts, ids)
        return label_columns(table["uid"], texts, texts)


class RepositoryFeatures(_Repository):
    """No text: sparse features in trn_X_Xf.txt and tst_X_Xf.txt, "N D" and then "feature:value ..."."""

    name = "XMC repository, features"
    has_text = False
    needs = "trn_X_Xf.txt, tst_X_Xf.txt, trn_X_Y.txt and tst_X_Y.txt"

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """See Layout."""
        return _has(folder, "X_Xf", "X_Y")

    @cached_property
    def n_features(self) -> int:
        """See Layout."""
        paths = [self._features_path(split) for split in SPLITS]
        widths = tuple(read_header(path, ("documents", "features"))[1] for path in paths)
        return same_counts(*paths, "features", widths)

    def _features_path(self, split: str) -> Path:
        return self.folder / f"{SHORT[split]}_X_Xf.txt"

    def _files(self) -> list[Path]:
        return [*map(self._features_path, SPLITS), *map(self.path, SPLITS)]

    def _blocks(self, split: str) -> Iterator[Block]:
        path, labels = self._features_path(split), self.path(split)
        documents = read_header(path, ("documents", "features"))[0]
        same_counts(labels, path, "documents", (self.count(split), documents))
        width = self.n_features
        features = (
            parse_row(line.split(), width, path, number)
            for number, line in enumerate(rows_below_header(path, documents), 2)
        )
        rows = side_by_side(features, self._label_rows(split), path, labels)
        for first, (parsed, ids) in in_blocks(rows):
            yield Block(
                default_uids(split, first, len(ids)),
                None,
                pack_labels(ids, self.n_labels, labels, first + 2),
                feature_matrix(*zip(*parsed, strict=True), width),
            )


def _has(folder: Path, *endings: str) -> bool:
    return all(
        (folder / f"{SHORT[split]}_{ending}.txt").is_file()
        for split in SPLITS
        for ending in endings
    )
