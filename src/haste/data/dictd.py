"""Reading a dictionary of the DICT protocol (RFC 2229) out of the Debian package that ships it.

The package is an `ar` archive with a tar archive in it. That holds the dictionary's text, compressed, and an index:
headword, offset and length of an entry in the text, the two numbers in base 64.
"""

from __future__ import annotations

import gzip
import io
import string
import tarfile
from collections.abc import Iterator
from pathlib import Path

from haste.files import reading

AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60
"""bytes; the name is in the first 16, the size in decimal in 10 from byte 48"""
DIGITS = {
    digit: value
    for value, digit in enumerate(
        f"{string.ascii_uppercase}{string.ascii_lowercase}{string.digits}+/"
    )
}
ABOUT = ("00-database", "00database")
"""how headwords begin whose entries are about the dictionary"""


def read_entries(package: Path) -> Iterator[list[str]]:
    """The lines of each entry, the headword's first, in the order of the index.

    An entry that several headwords lead to comes once. Raises DataError when the package is missing or damaged.
    """
    with reading(package, "a Debian package of a DICT dictionary"):
        index, text = _dictionary(package.read_bytes())
        seen = set()
        for line in index.decode().splitlines():
            headword, *place = line.split("\t")
            offset, length = map(_number, place[:2])
            if offset in seen or headword.startswith(ABOUT):
                continue
            seen.add(offset)
            if offset + length > len(text):
                raise ValueError(f"the entry of {headword!r} lies behind the end of the text")
            yield text[offset : offset + length].decode().rstrip("\n").split("\n")


def _dictionary(package: bytes) -> tuple[bytes, bytes]:
    """The index and the text."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(_data_member(package))) as archive:
        for member in archive:
            # folders have none
            stream = archive.extractfile(member)
            if stream and member.name.endswith((".index", ".dict.dz")):
                files[Path(member.name).suffix] = stream.read()
    if len(files) != 2:
        raise ValueError("no .index or no .dict.dz")
    return files[".index"], gzip.decompress(files[".dz"])


def _data_member(package: bytes) -> bytes:
    """The files' archive; members begin at even bytes."""
    if not package.startswith(AR_MAGIC):
        raise ValueError("not an ar archive")
    start = len(AR_MAGIC)
    while start + AR_HEADER <= len(package):
        header = package[start : start + AR_HEADER]
        size = int(header[48:58])
        start += AR_HEADER
        if start + size > len(package):
            raise ValueError("truncated")
        if header.startswith(b"data.tar"):
            return package[start : start + size]
        start += size + size % 2
    raise ValueError("no data.tar")


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = 64 * value + DIGITS[digit]
    return value
