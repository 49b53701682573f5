"""The layout of AttentionXML: texts one a line, and the same lines' labels as words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from haste.data.readers.base import SPLITS, Block, Layout
from haste.data.readers.lines import count_lines, read_lines, side_by_side

log = logging.getLogger(__name__)


class AttentionXml(Layout):
    """{train,test}_raw_texts.txt (or _texts.txt) and {train,test}_labels.txt.

    A label is the word that names it, and words are separated by spaces alone: a comma is part of one.
    Ids follow the order in which words are first met, so the training documents are to be read before
    the test documents.
    """

    name = "AttentionXML"
    needs = "train_raw_texts.txt (or train_texts.txt), train_labels.txt and the same of test"
    roles: ClassVar = {
        "texts": ("{split}_raw_texts.txt", "{split}_texts.txt"),
        "labels": ("{split}_labels.txt",),
    }
    n_labels = None

    def __init__(self, folder: Path, text: str = "title+content") -> None:
        super().__init__(folder, text)
        self._ids: dict[str, int] = {}

    def count(self, split: str) -> int:
        """See Layout; reads through the labels once."""
        return self._counts[split]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {split: self._count(split) for split in SPLITS}

    def _count(self, split: str) -> int:
        lines, blank = count_lines(self.path("labels", split))
        if not blank:
            return lines
        # a document without labels, or just the end of the file? As many as there are texts
        return max(lines - blank, min(lines, count_lines(self.path("texts", split))[0]))

    def _blocks(self, split: str) -> Iterator[Block]:
        texts, labels = self.path("texts", split), self.path("labels", split)
        pairs = side_by_side(read_lines(texts), read_lines(labels), texts, labels)
        return self._pack(split, self._with_ids(pairs, labels), labels, 1)

    def _with_ids(
        self, pairs: Iterator[tuple[str, str]], path: Path
    ) -> Iterator[tuple[str, list[int]]]:
        several = commas = False
        for text, line in pairs:
            words = line.split()
            several |= len(words) > 1
            commas |= "," in line
            yield text, [self._ids.setdefault(word, len(self._ids)) for word in words]
        if commas and not several:
            log.warning(
                "%s: no line has a space, but some have commas, which are part of a label: separate labels "
                "by spaces if they are meant to be several",
                path,
            )

    def _label_rows(self) -> Iterator[tuple[str, str, None]]:
        return ((word, word, None) for word in self._ids)
