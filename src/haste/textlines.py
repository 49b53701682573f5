"""Texts one a line, from bytes: the one place that says where a line ends and what is no text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from haste.errors import DataError

BOM = b"\xef\xbb\xbf"
LONGEST = 64 << 20
"""bytes of a line; a longer one is taken for damage, and would have to be held in memory"""


def iter_lines(
    stream: BinaryIO, *, name: str, max_bytes: int = LONGEST, encoding: str = "utf-8"
) -> Iterator[str]:
    r"""The lines of `stream` without their ends (\n or \r\n), one at a time, empty ones too.

    \n alone ends a line: a lone \r, vertical tab, form feed, NEL or U+2028 is part of one. A byte order
    mark at the start is no text. Raises DataError that names `name` (a path, or "standard input") and
    the line, for one that is longer than `max_bytes` or not in `encoding`.
    """
    for number, line in enumerate(iter_raw_lines(stream, name=name, max_bytes=max_bytes), 1):
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}: line {number}, byte {error.start + 1}: 0x{line[error.start]:02x} is not "
                f"{encoding}. Convert it to {encoding}."
            ) from error


def iter_raw_lines(stream: BinaryIO, *, name: str, max_bytes: int = LONGEST) -> Iterator[bytes]:
    """As `iter_lines`, not decoded. No more than `max_bytes` of a line are ever read."""
    number = 0
    # two more for the end of a line
    while line := stream.readline(max_bytes + 2):
        number += 1
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            line = line.removeprefix(BOM)
        if len(line) > max_bytes:
            raise DataError(
                f"{name}: line {number} is longer than {max_bytes} bytes; one line holds one document. "
                "Check what ends its lines."
            )
        yield line
