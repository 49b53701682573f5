"""Writing and reading the files between stages: whole or not at all, never unpickled.

scipy is imported where a matrix is: many commands read none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from haste.errors import DataError
from haste.strict_yaml import parse_yaml

if TYPE_CHECKING:
    import scipy.sparse as sp


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    The temporary name keeps the suffix, since numpy, pandas and matplotlib choose by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys; NaN is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
        return sp.csr_matrix(sp.load_npz(path))


def write_npz(path: Path | str, **arrays: np.ndarray) -> None:
    """Write named arrays as a compressed .npz."""
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


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
        found = "is a folder, not a file" if Path(path).is_dir() else "no such file"
        raise DataError(f"{path}: {found}.{f' To make it: {made_by}.' if made_by else ''}")
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
