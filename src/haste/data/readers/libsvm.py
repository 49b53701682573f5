"""The combined layout of the Extreme Classification Repository: labels and sparse features in one file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from haste.data.readers.base import (
    SPLITS,
    Block,
    Layout,
    default_uids,
    in_blocks,
    pack_labels,
    whole_number,
)
from haste.data.readers.lines import bad_line
from haste.data.readers.sparse_rows import (
    feature_matrix,
    parse_row,
    read_header,
    rows_below_header,
    same_counts,
)


class LibSvm(Layout):
    """train.txt and test.txt: "N D L", then "label,label feature:value ..." a document."""

    name = "libsvm"
    has_text = False
    needs = "train.txt and test.txt"

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """See Layout."""
        return all((folder / f"{split}.txt").is_file() for split in SPLITS)

    @cached_property
    def n_labels(self) -> int:
        """See Layout."""
        return self._same(2, "labels")

    @cached_property
    def n_features(self) -> int:
        """See Layout."""
        return self._same(1, "features")

    def path(self, split: str) -> Path:
        """See Layout."""
        return self.folder / f"{split}.txt"

    def count(self, split: str) -> int:
        """See Layout."""
        return self._header[split][0]

    @cached_property
    def _header(self) -> dict[str, tuple[int, ...]]:
        names = ("documents", "features", "labels")
        return {split: read_header(self.path(split), names) for split in SPLITS}

    def _same(self, at: int, what: str) -> int:
        paths = map(self.path, SPLITS)
        return same_counts(*paths, what, tuple(self._header[split][at] for split in SPLITS))

    def _files(self) -> list[Path]:
        return [self.path(split) for split in SPLITS]

    def _blocks(self, split: str) -> Iterator[Block]:
        path = self.path(split)
        for first, (labels, ids, values) in in_blocks(self._rows(path, self.count(split))):
            yield Block(
                default_uids(split, first, len(labels)),
                None,
                pack_labels(labels, self.n_labels, path, first + 2),
                feature_matrix(ids, values, self.n_features),
            )

    def _rows(
        self, path: Path, documents: int
    ) -> Iterator[tuple[list[int], list[int], list[float]]]:
        for number, line in enumerate(rows_below_header(path, documents), 2):
            words = line.split()
            labels = []
            # a document without labels begins with its features
            if words and ":" not in words[0]:
                labels = [whole_number(word) for word in words.pop(0).split(",")]
                if min(labels) < 0:
                    raise bad_line(path, number, "labels like 3,14,15", line)
            yield labels, *parse_row(words, self.n_features, path, number)
