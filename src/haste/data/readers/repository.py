"""The layouts of the Extreme Classification Repository: sparse rows "id:value id:value ..." below a line of counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from haste.data.readers.base import MOST, Block, Layout, chosen_of_line, same_counts, whole_number
from haste.data.readers.lines import bad_line, read_lines, side_by_side, without_blank_end

LARGEST = float(np.finfo(np.float32).max)


class _Counted(Layout):
    """Whose files have the counts of documents and more in their first line."""

    headers: ClassVar[dict[str, tuple[str, ...]]] = {"labels": ("documents", "labels")}
    """role -> what the first line of its files counts"""

    @cached_property
    def n_labels(self) -> int:
        """See Layout."""
        return self._same(self.counted, "labels")

    def count(self, split: str) -> int:
        """See Layout."""
        return self._header(self.counted, self.path(self.counted, split))["documents"]

    def _same(self, role: str, what: str) -> int:
        return self.same_count(role, what, lambda path: self._header(role, path)[what])

    def _header(self, role: str, path: Path) -> dict[str, int]:
        names = self.headers[role]
        line = next(read_lines(path, "ascii"), "")
        counts = [whole_number(word) for word in line.split()]
        if len(counts) != len(names) or not all(0 <= n <= MOST for n in counts):
            raise bad_line(path, 1, f"the counts of {', '.join(names)}", line)
        return dict(zip(names, counts, strict=True))

    def _label_ids(self, split: str) -> Iterator[list[int]]:
        """Of "label:1.0 label:1.0 ..." a document."""
        path = self.path("labels", split)
        for number, words in rows_below_header(path, self.count(split)):
            ids, values = parse_row(words, self.n_labels, path, number, least=0)
            yield [label for label, value in zip(ids, values, strict=True) if value]


class RepositoryText(_Counted):
    """trn_X.txt, texts one a line, and trn_X_Y.txt, labels; the labels' texts in Y.txt, if there is one."""

    name = "XMC repository, text"
    needs = "trn_X.txt, tst_X.txt, trn_X_Y.txt and tst_X_Y.txt"
    roles: ClassVar = {"texts": ("{short}_X.txt",), "labels": ("{short}_X_Y.txt",)}
    label_files = ("Y.txt",)

    def _blocks(self, split: str) -> Iterator[Block]:
        texts, labels = self.path("texts", split), self.path("labels", split)
        rows = side_by_side(read_lines(texts), self._label_ids(split), texts, labels)
        return self._pack(split, rows, labels, 2)

    def _label_rows(self) -> Iterator[tuple[None, str, str]] | None:
        if self.labels_path is None:
            return None
        lines = without_blank_end(read_lines(self.labels_path), keep=self.n_labels)
        texts = (chosen_of_line(line, self.text) for line in lines)
        return ((None, text, text) for text in texts)


class RepositoryFeatures(_Counted):
    """trn_X_Xf.txt, sparse features, and trn_X_Y.txt, labels."""

    name = "XMC repository, features"
    has_text = False
    needs = "trn_X_Xf.txt, tst_X_Xf.txt, trn_X_Y.txt and tst_X_Y.txt"
    roles: ClassVar = {"features": ("{short}_X_Xf.txt",), "labels": ("{short}_X_Y.txt",)}
    headers: ClassVar = {**_Counted.headers, "features": ("documents", "features")}

    @cached_property
    def n_features(self) -> int:
        """See Layout."""
        return self._same("features", "features")

    def _blocks(self, split: str) -> Iterator[Block]:
        path, labels = self.path("features", split), self.path("labels", split)
        documents = self._header("features", path)["documents"]
        same_counts(labels, path, "documents", (self.count(split), documents))
        width = self.n_features
        features = (
            parse_row(words, width, path, number)
            for number, words in rows_below_header(path, documents)
        )
        rows = side_by_side(features, self._label_ids(split), path, labels)
        return self._pack(split, rows, labels, 2)


class LibSvm(_Counted):
    """train.txt and test.txt: "N D L", then "label,label feature:value ..." a document."""

    name = "libsvm"
    has_text = False
    needs = "train.txt and test.txt"
    roles: ClassVar = {"documents": ("{split}.txt",)}
    counted = "documents"
    headers: ClassVar = {"documents": ("documents", "features", "labels")}

    @cached_property
    def n_features(self) -> int:
        """See Layout."""
        return self._same("documents", "features")

    def _blocks(self, split: str) -> Iterator[Block]:
        path = self.path("documents", split)
        return self._pack(split, self._rows(path, self.count(split)), path, 2)

    def _rows(
        self, path: Path, documents: int
    ) -> Iterator[tuple[tuple[list[int], list[float]], list[int]]]:
        for number, words in rows_below_header(path, documents):
            labels = []
            # a document without labels begins with its features
            if words and ":" not in words[0]:
                first = words.pop(0)
                labels = [whole_number(word) for word in first.split(",")]
                if min(labels) < 0:
                    raise bad_line(path, number, "labels like 3,14,15", first)
            yield parse_row(words, self.n_features, path, number), labels


def rows_below_header(path: Path, documents: int) -> Iterator[tuple[int, list[str]]]:
    """Number and words of all lines but the first, and but blank ones after those of all `documents`."""
    lines = read_lines(path, "ascii")
    next(lines, None)
    for number, line in enumerate(without_blank_end(lines, keep=documents), 2):
        yield number, line.split()


def parse_row(
    words: Sequence[str], width: int, path: Path, number: int, least: float = -LARGEST
) -> tuple[list[int], list[float]]:
    """Ids below `width` and values, finite as float32 and not below `least`, of the words "id:value";
    raises DataError."""
    ids, values = [], []
    for word in words:
        head, colon, tail = word.partition(":")
        column = whole_number(head)
        try:
            # Python would take 1_0 for 10
            value = math.nan if "_" in tail else float(tail)
        except ValueError:
            value = math.nan
        if not colon or not 0 <= column < width or not least <= value <= LARGEST:
            expected = f"id:value with an id from 0 to {width - 1}"
            if least == 0:
                expected += " and a value that is not negative"
            raise bad_line(path, number, expected, word, from_one=column == width)
        ids.append(column)
        values.append(value)
    return ids, values
