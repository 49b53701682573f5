"""What every layout of an extreme classification data set gives, however its files look."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from haste.data.ragged import Ragged, offsets_of
from haste.data.readers.lines import bad_line, read_lines, without_blank_end
from haste.errors import DataError

SPLITS = ("train", "test")
"""what is published; validation is taken from train"""
SHORT = {"train": "trn", "test": "tst"}
"""how file names of most layouts begin or end"""
ROWS = 16_384
"""documents of a block"""
MOST = 100_000_000
"""labels, features or documents: a file that speaks of more is taken for damaged"""
TITLE_ENDS = "/SEP/"
"""stands between title and content in text files of one line a document"""


@dataclass(frozen=True)
class Block:
    """Consecutive documents of a split, in the order of the files."""

    uids: Sequence[str]
    texts: Sequence[str] | None
    """None in a layout of sparse features"""
    labels: Ragged
    """label ids (int32 or int64) from 0, as the layout counts them; a document may name one twice"""
    features: sp.csr_matrix | None = None
    """float32 [B, D]; None in a layout of text"""

    def __len__(self) -> int:
        return len(self.uids)


class Layout(ABC):
    """A data set's training and test documents in a folder, read block by block.

    Every method that reads raises DataError, with file and line, for what is not as it should be.
    """

    name: ClassVar[str]
    needs: ClassVar[str]
    """the files, as a message lists them"""
    roles: ClassVar[Mapping[str, tuple[str, ...]]]
    """the files of a split: role -> the names it may have, in which {split} stands for train or test and
    {short} for trn or tst"""
    counted: ClassVar[str] = "labels"
    """the role of the file that says how many documents there are"""
    label_files: ClassVar[tuple[str, ...]] = ()
    """names that a file of the labels' texts may have, if there is one"""
    has_text: ClassVar[bool] = True
    """whether documents are texts; if not, they are sparse features"""

    def __init__(self, folder: Path, text: str = "title+content") -> None:
        """`text`: what of a document is read where its title and content are told apart, title or
        title+content."""
        self.folder = folder
        self.text = text

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """Whether a folder has the files of this layout."""
        return all(_find(folder, names, split) for names in cls.roles.values() for split in SPLITS)

    def path(self, role: str, split: str) -> Path:
        """The file of a role of `train` or `test`."""
        # there is one in a folder in which the layout lies
        return cast("Path", _find(self.folder, self.roles[role], split))

    @property
    def labels_path(self) -> Path | None:
        """The file of the labels' texts, if there is one."""
        return _find(self.folder, self.label_files, "train")

    @property
    def n_features(self) -> int:
        """D, columns of sparse features; 0 for a data set with text, whose features are not read."""
        return 0

    @property
    @abstractmethod
    def n_labels(self) -> int | None:
        """Labels as the files declare them; None where only the documents tell."""

    @abstractmethod
    def count(self, split: str) -> int:
        """Documents of a split, without reading them all where the files say it."""

    def files(self) -> list[Path]:
        """All files that reading uses, those there may be or not as far as they are there."""
        needed = [self.path(role, split) for role in self.roles for split in SPLITS]
        optional = [self.labels_path, *map(self.filter_path, SPLITS)]
        return [*needed, *(path for path in optional if path and path.is_file())]

    def blocks(self, split: str) -> Iterator[Block]:
        """The documents of `train` or `test`; train is to be read first."""
        expected, number = self.count(split), 0
        for block in self._blocks(split):
            number += len(block)
            yield block
        if number != expected:
            raise DataError(
                f"{self.path(self.counted, split)}: expected {expected} documents, found {number}. "
                "Correct its first line, or replace it by a whole copy."
            )

    @abstractmethod
    def _blocks(self, split: str) -> Iterator[Block]:
        """See `blocks`."""

    def _pack(
        self, split: str, rows: Iterable[tuple[Any, Sequence[int]]], path: Path, first_line: int
    ) -> Iterator[Block]:
        """Blocks of documents: the line of their text, or (ids, values) of their features, and labels.

        `path`: the file with the labels, the first document's in line `first_line`.
        """
        for first, (documents, labels) in in_blocks(rows):
            texts = features = None
            if self.has_text:
                texts = [chosen_of_line(line, self.text) for line in documents]
            else:
                ids_of, values_of = zip(*documents, strict=True)
                features = feature_matrix(ids_of, values_of, self.n_features)
            uids = default_uids(split, first, len(labels))
            ids = pack_labels(labels, self.n_labels, path, first + first_line)
            yield Block(uids, texts, ids, features)

    def labels(self, ids: np.ndarray) -> pa.Table:
        """Columns uid, name and text (null where there is none; all large_string) of the labels `ids`
        (integers, any order), to be called after all blocks were read."""
        rows = self._label_rows()
        if rows is None:
            uids = pa.array(ids).cast(pa.large_string())
            return pa.table({"uid": uids, "name": uids, "text": pa.nulls(len(ids), uids.type)})
        schema = pa.schema([(name, pa.large_string()) for name in ("uid", "name", "text")])
        parts = []
        for first, (uids, names, texts) in in_blocks(rows):
            if None in uids:
                uids = np.arange(first, first + len(uids)).astype(str)
            parts.append(pa.table([list(uids), names, texts], schema=schema))
        table = pa.concat_tables(parts) if parts else schema.empty_table()
        if self.n_labels not in (None, len(table)):
            raise DataError(
                f"{self.labels_path}: expected {self.n_labels} lines, one a label, found {len(table)}. "
                "Correct or replace the file."
            )
        # chunks that are small enough to become ordinary strings
        pieces = np.split(ids, range(ROWS, len(ids), ROWS))
        return pa.concat_tables([table.take(pa.array(piece)) for piece in pieces])

    def _label_rows(self) -> Iterator[tuple[str | None, str, str | None]] | None:
        """uid (None: the number of the row), name and text of all labels; None where files have none."""
        return None

    def filter_path(self, split: str) -> Path:
        """Where the publishers' list of pairs lies, if there is one."""
        return self.folder / f"filter_labels_{split}.txt"

    def filter_pairs(self, split: str) -> np.ndarray | None:
        """int64 [P, 2]: document and label of the pairs that are left out of an evaluation, as the
        publishers list them; None where they list none."""
        path = self.filter_path(split)
        if not path.is_file():
            return None
        limits = (self.count(split), MOST if self.n_labels is None else self.n_labels)
        expected = f"a document below {limits[0]} and a label below {limits[1]}"
        pairs = array("q")  # there may be millions
        for number, line in enumerate(without_blank_end(read_lines(path, "ascii")), 1):
            pair = [whole_number(word) for word in line.split()]
            if len(pair) != 2 or not all(0 <= n < m for n, m in zip(pair, limits, strict=True)):
                one = len(pair) == 2 and (pair[0] == limits[0] or pair[1] == limits[1])
                raise bad_line(path, number, expected, line, from_one=one)
            pairs.extend(pair)
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def same_count(self, role: str, what: str, count_of: Callable[[Path], int]) -> int:
        """The count that the files of a role give alike in both splits; raises DataError showing both."""
        train, test = (self.path(role, split) for split in SPLITS)
        return same_counts(train, test, what, (count_of(train), count_of(test)))


def _find(folder: Path, names: tuple[str, ...], split: str) -> Path | None:
    paths = (folder / name.format(split=split, short=SHORT[split]) for name in names)
    return next((path for path in paths if path.is_file()), None)


def same_counts(first: Path, second: Path, what: str, counts: tuple[int, int]) -> int:
    """The count that two files give alike; raises DataError showing both."""
    if counts[0] != counts[1]:
        raise DataError(
            f"{second}: says {counts[1]} {what}, but {first} says {counts[0]}. They belong to different "
            "data sets, or one is damaged."
        )
    return counts[0]


def in_blocks(rows: Iterable[tuple]) -> Iterator[tuple[int, tuple[tuple, ...]]]:
    """The number of the first row, and the columns, of each ROWS rows."""
    iterator = iter(rows)
    for first in itertools.count(0, ROWS):
        block = list(itertools.islice(iterator, ROWS))
        if not block:
            return
        yield first, tuple(zip(*block, strict=True))


def default_uids(split: str, first: int, number: int) -> list[str]:
    """Uids for documents that have none: split and row."""
    return [f"{split}-{row}" for row in range(first, first + number)]


def pack_labels(
    rows: Sequence[Sequence[int]], n_labels: int | None, path: Path, first_line: int
) -> Ragged:
    """Label ids of consecutive lines as int64; raises DataError for one that is no label."""
    offsets = offsets_of(list(map(len, rows)))
    most = MOST if n_labels is None else n_labels
    try:
        values = np.fromiter(itertools.chain.from_iterable(rows), np.int64, offsets[-1])
        fine = not len(values) or (values.min() >= 0 and values.max() < most)
    except OverflowError:
        fine = False
    if not fine:
        row, wrong = next((i, n) for i, row in enumerate(rows) for n in row if not 0 <= n < most)
        raise bad_line(
            path, first_line + row, f"labels from 0 to {most - 1}", wrong, from_one=wrong == most
        )
    return Ragged(values, offsets)


def feature_matrix(
    ids: Sequence[Sequence[int]], values: Sequence[Sequence[float]], width: int
) -> sp.csr_matrix:
    """float32 CSR [B, width] of rows, sorted, an id named twice summed."""
    indptr = offsets_of(list(map(len, ids)))
    columns = np.fromiter(itertools.chain.from_iterable(ids), np.int32, indptr[-1])
    data = np.fromiter(itertools.chain.from_iterable(values), np.float32, indptr[-1])
    matrix = sp.csr_matrix((data, columns, indptr), shape=(len(ids), width))
    matrix.sum_duplicates()
    return matrix


def whole_number(word: str) -> int:
    """A number written in digits alone; -1 for anything else."""
    return int(word) if word.isdigit() and word.isascii() and len(word) < 19 else -1


def chosen_text(title: str, content: str, text: str) -> str:
    """What `text` (see Layout) asks for of a document or label."""
    return title if text == "title" or not content else f"{title} {content}".strip()


def chosen_of_line(line: str, text: str) -> str:
    """As `chosen_text`, of a line that holds both; all of it is title where nothing divides it."""
    title, _, content = line.partition(TITLE_ENDS)
    return chosen_text(title.strip(), content.strip(), text)
