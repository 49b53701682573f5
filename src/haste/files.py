"""Writing and reading the files between stages: whole or not at all, never unpickled.

scipy is imported where a matrix is: many commands read none.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import glob
import hashlib
import json
import math
import os
import re
import secrets
import socket
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import yaml

from haste.errors import DataError
from haste.strict_yaml import parse_yaml

if TYPE_CHECKING:
    import scipy.sparse as sp

_HOST = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "localhost"
_PROCESS = f"{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
"""what writes here, as temporary names say it; the mark tells it from one that had its number before"""
_OLD_SECONDS = 24 * 3600


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    The temporary name keeps the suffix, since numpy, pandas and matplotlib choose by it, and says which
    process writes: what a killed one left is removed first. An error that the disk is full names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    prefix = f".{path.stem}.{_PROCESS}-"
    with naming_target(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming_target(path):
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `path` whose writers were killed.

    Those of a process of this machine go when it is gone, others when they are a day old.
    """
    begin, end = f".{path.stem}.", path.suffix
    for leftover in path.parent.glob(f"{glob.escape(begin)}*{glob.escape(end)}"):
        middle = leftover.name[len(begin) : len(leftover.name) - len(end)]
        with contextlib.suppress(FileNotFoundError):
            if _is_left(middle, leftover.stat().st_mtime):
                leftover.unlink()


def _is_left(middle: str, changed: float) -> bool:
    """Whether no process writes a temporary file any more; `middle`: of its name."""
    match = re.fullmatch(r"(?P<process>(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8})-[a-z0-9_]{8}", middle)
    if not match or match["process"] == _PROCESS:
        return False
    if match["host"] != _HOST:
        return time.time() - changed > _OLD_SECONDS
    # a process with the number of this one, and another mark, was before it
    return int(match["pid"]) == os.getpid() or not is_alive(int(match["pid"]))


def is_alive(pid: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or a limit on a file's size is reached."""
    if not isinstance(error, OSError):
        return False
    # ndarray.tofile gives no errno
    short = error.errno is None and re.search(r"\d+ requested and \d+ written", str(error))
    return bool(short) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def naming_target(path: Path | str) -> Iterator[None]:
    """Let an error of the block that the disk is full name `path`, which it was to write."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        reason = error.strerror or "No space left on device"
        raise OSError(error.errno or errno.ENOSPC, reason, str(path)) from error


def mapped_array(
    file: Path | BinaryIO, dtype: np.dtype | str | type, shape: tuple[int, ...]
) -> np.memmap:
    """An array of zeros in a file, mapped to memory: .npy where a path is given, else the values alone.

    Its blocks are reserved, so that a full disk is an OSError here and no signal when it is filled.
    """
    if isinstance(file, Path):
        array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        with naming_target(file), file.open("r+b") as opened:
            _reserve(opened)
        return array
    file.truncate(max(math.prod(shape) * np.dtype(dtype).itemsize, 1))
    _reserve(file)
    return np.memmap(file, dtype, mode="r+", shape=shape)


def _reserve(file: BinaryIO) -> None:
    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def is_occupied(path: Path) -> bool:
    """Whether there is something other than an empty folder."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys; NaN is refused."""
    with atomic(path) as temporary:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path | str, made_by: str | None = None) -> Any:
    """Read JSON; raises DataError naming the file when it is missing or damaged."""
    with reading(path, "a JSON file", made_by):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def write_yaml(path: Path | str, value: Mapping[str, Any]) -> None:
    """Write a mapping as YAML, keys in their order."""
    with atomic(path) as temporary:
        temporary.write_text(yaml.safe_dump(dict(value), sort_keys=False), encoding="utf-8")


def read_yaml(path: Path | str) -> Any:
    """Read YAML as `parse_yaml` does; raises DataError naming the file when it is missing or damaged."""
    with reading(path, "a YAML file"):
        return parse_yaml(Path(path).read_text(encoding="utf-8"), path)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a csv of these columns; what is None, or not in a row, is an empty cell."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_csr(path: Path | str, matrix: sp.spmatrix) -> None:
    """Write a sparse matrix as .npz (scipy's layout), column ids as int32."""
    import scipy.sparse as sp

    matrix = sp.csr_matrix(matrix)
    matrix.sort_indices()
    matrix.indices = matrix.indices.astype(np.int32, copy=False)
    with atomic(path) as temporary:
        sp.save_npz(temporary, matrix, compressed=True)


def read_csr(path: Path | str, made_by: str | None = None) -> sp.csr_matrix:
    """Read a matrix that `write_csr` wrote; raises DataError when it is missing or damaged."""
    import scipy.sparse as sp

    with reading(path, "a sparse matrix (.npz)", made_by):
        matrix = sp.csr_matrix(sp.load_npz(path))
        # every index, which scipy does not check
        matrix.check_format()
        return matrix


def write_npz(path: Path | str, **arrays: np.ndarray) -> None:
    """Write named arrays as a compressed .npz."""
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]  # its stub: as allow_pickle


def read_npz(path: Path | str, made_by: str | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz without unpickling; raises DataError when missing or damaged."""
    with reading(path, "an .npz file", made_by), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@contextlib.contextmanager
def reading(path: Path | str, expected: str, made_by: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong while reading `path` into a DataError that names it.

    `made_by` is the command that makes the file, such as "haste corpus"; None for a file that the user
    wrote, or where the caller cannot know.
    """
    if not Path(path).is_file():
        problem = "is a folder, not a file" if Path(path).is_dir() else "no such file"
        raise DataError(f"{path}: {problem}.{f' To make it: {made_by}.' if made_by else ''}")
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        what = " ".join(str(error).split())
        again = f" Delete it, and make it again: {made_by}." if made_by else ""
        raise DataError(
            f"{path}: not {expected} ({type(error).__name__}: {what}).{again}"
        ) from error


def sha256(path: Path | str) -> str:
    """Hex digest of a file, read in blocks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def crc32(path: Path | str) -> str:
    """Hex CRC-32 of a file, read in blocks: finds damage at the speed of the disk, not forgery."""
    value = 0
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
