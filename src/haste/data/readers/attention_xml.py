"""The layout of AttentionXML: texts one a line, and the same lines' labels as words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from haste.data.readers.base import (
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
from haste.data.readers.lines import count_lines, read_lines, side_by_side

log = logging.getLogger(__name__)

TEXTS = ("{}_raw_texts.txt", "{}_texts.txt")


class AttentionXml(Layout):
    """{train,test}_raw_texts.txt (or _texts.txt) and {train,test}_labels.txt.

    A label is the word that names it, and words are separated by spaces alone: a comma is part of one.
    Ids follow the order in which words are first met, so the training documents are to be read before
    the test documents.
    """

    name = "AttentionXML"
    needs = "train_raw_texts.txt (or train_texts.txt), train_labels.txt and the same of test"
    n_labels = None

    def __init__(self, folder: Path, text: str = "title+content") -> None:
        super().__init__(folder, text)
        self._ids: dict[str, int] = {}

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """See Layout."""
        return all(
            _texts(folder, split) and (folder / f"{split}_labels.txt").is_file() for split in SPLITS
        )

    def path(self, split: str) -> Path:
        """See Layout."""
        return self.folder / f"{split}_labels.txt"

    def count(self, split: str) -> int:
        """See Layout; reads through the labels once."""
        return self._counts[split]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {split: self._count(split) for split in SPLITS}

    def _count(self, split: str) -> int:
        lines, blank = count_lines(self.path(split))
        if not blank:
            return lines
        # a document without labels, or just the end of the file? As many as there are texts
        return max(lines - blank, min(lines, count_lines(_texts(self.folder, split))[0]))

    def _files(self) -> list[Path]:
        return [path for s in SPLITS for path in (_texts(self.folder, s), self.path(s))]

    def _blocks(self, split: str) -> Iterator[Block]:
        path, texts = self.path(split), _texts(self.folder, split)
        pairs = side_by_side(read_lines(texts), read_lines(path), texts, path)
        for first, (lines, words) in in_blocks(pairs):
            ids = [
                [self._ids.setdefault(word, len(self._ids)) for word in line.split()]
                for line in words
            ]
            if first == 0 and all(len(row) < 2 for row in ids) and any("," in w for w in words):
                log.warning(
                    "%s: no line has a space, but some have commas, which are part of a label: separate "
                    "labels by spaces if they are meant to be several",
                    path,
                )
            yield Block(
                default_uids(split, first, len(lines)),
                [chosen_of_line(line, self.text) for line in lines],
                pack_labels(ids, None, path, first + 1),
            )

    def labels(self, ids: np.ndarray) -> pa.Table:
        """See Layout."""
        words = take_strings(pa.chunked_array([list(self._ids)], pa.large_string()), ids)
        return label_columns(words, words, pa.nulls(len(words), pa.large_string()))


def _texts(folder: Path, split: str) -> Path | None:
    paths = (folder / pattern.format(split) for pattern in TEXTS)
    return next((path for path in paths if path.is_file()), None)
