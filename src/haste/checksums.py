"""Size and CRC-32 of files, written down by the stage that makes them and held to where they are read.

They find damage, not forgery. Files of before they were written down have none, and are read as they
are: what is in them is checked all the same, as far as one can see it.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from haste.errors import DataError
from haste.files import crc32, read_json, reading, write_json

Sum = Mapping[str, Any]
"""bytes (int) and crc32 (eight hexadecimal digits)"""
FILE_TIMES = "corpus_seen"
"""key of tokens.json: when the files that were read last changed, which differs from machine to machine"""
SUMS = "digests"
"""key of a description (corpus.json, tokens.json): Sum by file name"""
SEAL = "crc32"
"""key of a description: the CRC-32 of all the rest of it"""


def file_sum(path: Path) -> dict[str, Any]:
    """The Sum of a file; one that has not changed since is not read again."""
    state = file_state(path)
    return {"bytes": state[1], "crc32": _crc32(*state)}


def file_state(path: Path) -> tuple[Path, int, int, int]:
    """A file as it is now, by size, time and inode: what was read of it holds while this stays the same."""
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns, status.st_ino


def file_sums(paths: Iterable[Path], folder: Path | str) -> dict[str, dict[str, Any]]:
    """The Sums of files by their path in `folder`, sorted."""
    return {path.relative_to(folder).as_posix(): file_sum(path) for path in sorted(paths)}


def check_file(path: Path, sums: Mapping[str, Sum], made_by: str) -> None:
    """Raise DataError where a file is missing or is not what `sums` say of its name; nothing where
    they say nothing. `made_by`: the command that makes it."""
    with reading(path, "a file", made_by):
        known = sums.get(path.name)
        if not known:
            return
        current = file_sum(path)
    if current != known:
        raise DataError(
            f"{path}: is not what was written: {known['bytes']} bytes with CRC {known['crc32']} then, "
            f"{current['bytes']} with {current['crc32']} now. Delete it, and make it again: {made_by}."
        )


def write_description(path: Path, value: Mapping[str, Any]) -> None:
    """Write a description of files as JSON, sealed."""
    write_json(path, {**value, SEAL: _seal(value)})


def read_description(path: Path, made_by: str) -> dict[str, Any]:
    """What `write_description` was given, or anyone wrote without a seal; raises DataError where it is
    missing, damaged or altered."""
    value = read_json(path, made_by)
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a description of files. Make it again: {made_by}.")
    seal = value.pop(SEAL, None)
    if seal is not None and seal != _seal(value):
        raise DataError(
            f"{path}: is not what was written: its CRC was {seal}, and is {_seal(value)}. Delete it, and "
            f"make it again: {made_by}."
        )
    return value


def write_beside(path: Path) -> None:
    """Write down the Sum of a file that no description tells of, in a file beside it."""
    write_json(_beside(path), {path.name: file_sum(path)})


def remove_beside(path: Path) -> None:
    """Before the file is written again."""
    _beside(path).unlink(missing_ok=True)


def check_beside(path: Path, made_by: str) -> None:
    """As `check_file`, by what `write_beside` wrote."""
    beside = _beside(path)
    sums = read_json(beside, made_by) if beside.is_file() else {}
    check_file(path, sums, made_by)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sum.json")


def _seal(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


@functools.lru_cache(maxsize=4096)
def _crc32(path: Path, size: int, time: int, inode: int) -> str:  # noqa: ARG001, they are the key
    return crc32(path)
