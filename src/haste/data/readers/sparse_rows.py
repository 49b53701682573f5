"""Sparse rows as text, "id:value id:value ...", and the counts in the first line of such files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from haste.data.readers.base import MOST, whole_number
from haste.data.readers.lines import bad_line, read_lines, without_blank_end
from haste.errors import DataError

LARGEST = float(np.finfo(np.float32).max)


def read_header(path: Path, names: tuple[str, ...]) -> tuple[int, ...]:
    """The counts in the first line, such as documents and labels; raises DataError."""
    line = next(read_lines(path, "ascii"), "")
    counts = tuple(whole_number(word) for word in line.split())
    if len(counts) != len(names) or not all(0 <= n <= MOST for n in counts):
        raise bad_line(path, 1, f"the counts of {', '.join(names)}", line)
    return counts


def rows_below_header(path: Path, documents: int) -> Iterator[str]:
    """All lines but the first, and but blank ones after those of all `documents`."""
    lines = read_lines(path, "ascii")
    next(lines, None)
    return without_blank_end(lines, keep=documents)


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


def feature_matrix(
    ids: Sequence[Sequence[int]], values: Sequence[Sequence[float]], width: int
) -> sp.csr_matrix:
    """float32 CSR [B, width] of rows that `parse_row` gave, sorted, an id named twice summed."""
    indptr = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in ids], out=indptr[1:])
    columns = np.fromiter((c for row in ids for c in row), np.int32, indptr[-1])
    data = np.fromiter((v for row in values for v in row), np.float32, indptr[-1])
    matrix = sp.csr_matrix((data, columns, indptr), shape=(len(ids), width))
    matrix.sum_duplicates()
    return matrix


def same_counts(first: Path, second: Path, what: str, counts: tuple[int, int]) -> int:
    """The count that two files give alike; raises DataError showing both."""
    if counts[0] != counts[1]:
        raise DataError(
            f"{second}: says {counts[1]} {what}, but {first} says {counts[0]}. They belong to different "
            "data sets, or one is damaged."
        )
    return counts[0]
