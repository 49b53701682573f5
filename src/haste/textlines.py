"""Texts one a line, from bytes: the one place that says where a line ends and what is no text."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from haste.errors import DataError

BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20
LONGEST = 64 << 20
"""bytes of a line; a longer one is taken for damage, and would have to be held in memory"""


def iter_lines(
    stream: BinaryIO | LineStream, *, name: str, max_bytes: int = LONGEST, encoding: str = "utf-8"
) -> Iterator[str]:
    r"""The lines of `stream` without their ends (\n or \r\n), one at a time, empty ones too.

    \n alone ends a line: a lone \r, vertical tab, form feed, NEL or U+2028 is part of one. A byte order
    mark at the start is no text. Raises DataError that names `name` (a path, or "standard input") and
    the line, for one that is longer than `max_bytes` or not in `encoding`.
    """
    number = 0
    # two more for the end of a line; no more than that of one is ever read
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
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}: line {number}, byte {error.start + 1}: 0x{line[error.start]:02x} is not "
                f"{encoding}. Convert it to {encoding}."
            ) from error


def is_whole(text: str) -> bool:
    r"""Whether a text has whole characters alone, no half of a pair, as "\ud800" of JSON gives: no file could
    hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class LineStream:
    """Lines of a file descriptor that knows whether another one can be had without waiting."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._rest = b""

    def readline(self, limit: int, /) -> bytes:
        """The next line with its end, no more than some `limit` bytes of it; empty at the end."""
        while not self._lines:
            if len(self._rest) >= limit:
                line, self._rest = self._rest[:limit], self._rest[limit:]
                return line
            chunk = os.read(self._descriptor, _CHUNK)
            if not chunk:
                line, self._rest = self._rest, b""
                return line
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self._lines.extend(line + b"\n" for line in lines)
        return self._lines.popleft()

    def blocks(
        self, name: str, *, max_lines: int = 4096, max_chars: int = 1 << 24
    ) -> Iterator[list[str]]:
        """The lines as `iter_lines` has them, as many together as can be had without waiting, up to
        `max_lines`, or `max_chars` and the rest of a line."""
        block: list[str] = []
        size = 0
        try:
            for line in iter_lines(self, name=name):
                block.append(line)
                size += len(line)
                if len(block) == max_lines or size >= max_chars or not self._ready():
                    yield block
                    block, size = [], 0
        except DataError:
            # lines before the bad one are good
            if block:
                yield block
            raise
        if block:
            yield block

    def _ready(self) -> bool:
        return bool(self._lines) or bool(select.select([self._descriptor], [], [], 0)[0])
