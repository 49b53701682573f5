"""Text files line by line, plain or gzipped; what is wrong is reported with file, line and byte."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from haste.errors import DataError
from haste.files import atomic
from haste.textlines import iter_lines

CHUNK = 1 << 20
FASTEST = 1
"""level of compression of what is written"""
SHOWN = 60
"""characters of a bad line that a message shows"""
_ENDED: Any = object()

Left = TypeVar("Left")
Right = TypeVar("Right")


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    r"""The lines of a file without their ends (\n or \r\n), one at a time; see `haste.textlines`.

    Raises DataError where the file cannot be read, is not in `encoding` or has a line without end.
    """
    with _opened(path) as stream:
        yield from iter_lines(stream, name=str(path), encoding=encoding)


def count_lines(path: Path) -> tuple[int, int]:
    """Lines of a file, a last one without an end included, and how many blank ones come last of all;
    raises DataError."""
    number = written = 0
    with _opened(path) as stream:
        # any bytes are latin-1: what is no text is said where it is read
        for number, line in enumerate(iter_lines(stream, name=str(path), encoding="latin-1"), 1):
            if not _is_blank(line):
                written = number
    return number, number - written


def without_blank_end(lines: Iterable[str], keep: int = 0) -> Iterator[str]:
    """All lines but the blank ones at the end, of which the first `keep` lines of all are none."""
    blank: list[str] = []
    for number, line in enumerate(lines, 1):
        if number > keep and _is_blank(line):
            blank.append(line)
            continue
        yield from blank
        blank.clear()
        yield line


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line of a file, but blank ones at its end; raises DataError."""
    for number, line in enumerate(without_blank_end(read_lines(path)), 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise bad_line(path, number, f"a JSON object ({error})", line) from error
        if not isinstance(entry, dict):
            raise bad_line(path, number, "a JSON object", line)
        yield number, entry


def side_by_side(
    left: Iterable[Left], right: Iterable[Right], left_path: Path, right_path: Path
) -> Iterator[tuple[Left, Right]]:
    """Pairs of what was read from two files that must be equally long; raises DataError.

    Blank lines at the end of the longer one are no documents.
    """
    for number, (a, b) in enumerate(itertools.zip_longest(left, right, fillvalue=_ENDED)):
        if a is not _ENDED and b is not _ENDED:
            yield a, b
        elif not _is_blank(b if a is _ENDED else a):
            short, long = (left_path, right_path) if a is _ENDED else (right_path, left_path)
            raise DataError(
                f"{short}: ends after {number} documents, but {long} has more. What stands in the same "
                "place of both belongs together; correct or replace one of them."
            )


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines as gzipped UTF-8; the same lines give the same bytes."""
    with (
        atomic(path) as temporary,
        temporary.open("wb", CHUNK) as file,
        gzip.GzipFile("", "wb", FASTEST, file, mtime=0) as packed,
        io.BufferedWriter(packed, CHUNK) as stream,
    ):
        stream.writelines(line.encode() + b"\n" for line in lines)


def bad_line(
    path: Path, number: int, expected: str, value: object, *, from_one: bool = False
) -> DataError:
    """The error for a line that is not what it should be; `value` is shown, cut short.

    `from_one`: a number is just one too large, as in a file that counts from 1.
    """
    shown = str(value)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    hint = " Does it count from 1? All counts begin at 0." if from_one else ""
    return DataError(
        f"{path}: line {number}: expected {expected}, found {shown!r}.{hint} Correct the file."
    )


def _is_blank(line: object) -> bool:
    return isinstance(line, str) and not line.strip()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        # lines of a GzipFile itself are slow
        is_gzipped = path.suffix == ".gz"
        with (
            io.BufferedReader(gzip.open(path), CHUNK) if is_gzipped else path.open("rb", CHUNK)
        ) as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read to its end ({error}). Replace it by a whole copy."
        ) from error
