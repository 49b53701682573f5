"""Taking named files out of a tar or zip archive that is not trusted."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from haste.errors import DataError

BLOCK = 1 << 20

Members = dict[str, Callable[[], IO[bytes]]]
"""path in the archive -> how to open it for reading"""


def extract(archive: Path, members: Mapping[str, str], folder: Path, limit: int) -> None:
    """Write `members` (name -> path in the archive) into `folder`, which must exist.

    Only these files are written, under these names, as plain files. Raises DataError when the
    archive is damaged or lacks one, when any path in it is absolute or has "..", when a wanted
    member is a link or the like, and when the members are larger than `limit` bytes together,
    counted while unpacking, whatever the archive claims.
    """
    opened = _open_zip if archive.suffix in (".zip", ".whl") else _open_tar
    try:
        with opened(archive) as available:
            for name, path in members.items():
                if path not in available:
                    raise DataError(f"{archive.name}: has no member {path}.")
                with available[path]() as stream, (folder / name).open("wb") as target:
                    limit -= _copy(stream, target, limit, archive)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the archive's
        raise DataError(f"{archive.name}: damaged archive ({error}). Fetch it again.") from error


def _copy(stream: IO[bytes], target: IO[bytes], limit: int, archive: Path) -> int:
    size = 0
    while block := stream.read(BLOCK):
        size += len(block)
        if size > limit:
            raise DataError(
                f"{archive.name}: its members unpack to more bytes than the registry's `unpacked` "
                "allows; refused."
            )
        target.write(block)
    return size


@contextmanager
def _open_tar(path: Path) -> Iterator[Members]:
    with tarfile.open(path, "r:*") as archive:
        members = {info.name: partial(_tar_member, archive, info) for info in archive}
        _check_paths(path, members)
        yield members


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(info) if info.isreg() else None
    if stream is None:
        raise DataError(f"{info.name}: is a link, folder or device in the archive; refused.")
    return stream


@contextmanager
def _open_zip(path: Path) -> Iterator[Members]:
    with zipfile.ZipFile(path) as archive:
        members = {
            info.filename: partial(_zip_member, archive, info) for info in archive.infolist()
        }
        _check_paths(path, members)
        yield members


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if stat.S_ISLNK(info.external_attr >> 16) or info.is_dir():
        raise DataError(f"{info.filename}: is a link or folder in the archive; refused.")
    return archive.open(info)


def _check_paths(archive: Path, names: Members) -> None:
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            raise DataError(f"{archive.name}: member {name!r} leads out of the folder; refused.")
