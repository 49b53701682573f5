"""Taking files out of a tar, zip or gzip archive that is not trusted."""

from __future__ import annotations

import gzip
import logging
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from haste.errors import DataError

log = logging.getLogger(__name__)

BLOCK = 1 << 20
MAX_FILES = 10_000
"""an archive of a data set has dozens; one with more than this is refused"""
HIDDEN = (".", "__MACOSX")
ZIP = b"PK"
GZIP = b"\x1f\x8b"


class NoRoomError(DataError):
    """The disk is too small; the archive may well be whole."""


@dataclass(frozen=True)
class Member:
    """What lies in an archive under one path."""

    open: Callable[[], IO[bytes]]
    size: int
    """unpacked, as the archive claims; 0 where it does not say"""
    kind: str = "file"
    """file, folder or other (a link, a device and the like)"""


def extract(archive: Path, members: Mapping[str, str], folder: Path, limit: int) -> None:
    """Write `members` (name -> path in the archive) into `folder`, which must exist.

    Without `members` all regular files are written under their paths, less the folders that all of
    them lie in; hidden files and links are left out. The kind of archive is told by its content.
    Raises DataError when the archive is damaged or lacks a member, when any path in it is absolute
    or has "..", when a wanted member is a link or the like, when there is no room on the disk, and
    when the files are larger than `limit` bytes together, counted while unpacking, whatever the
    archive claims.
    """
    try:
        with _opened(archive) as available:
            _check_paths(archive, available)
            if len(available) > MAX_FILES:
                raise DataError(f"{archive.name}: has {len(available)} members; refused.")
            wanted = members or _all_files(archive, available)
            _check_wanted(archive, available, wanted.values())
            check_room(folder, sum(available[path].size for path in wanted.values()))
            for name, path in wanted.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with available[path].open() as stream, target.open("wb") as file:
                    limit -= _copy(stream, file, limit, archive)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the archive's
        raise DataError(f"{archive.name}: damaged archive ({error}). Fetch it again.") from error


def check_room(folder: Path, needed: int) -> None:
    """Raise NoRoomError when the disk of `folder` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoRoomError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free. Make room, or "
            "choose another disk (data_dir of the configuration)."
        )


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
def _opened(path: Path) -> Iterator[dict[str, Member]]:
    """The members by their path in the archive."""
    with path.open("rb") as stream:
        start = stream.read(2)
    if start == ZIP:
        with zipfile.ZipFile(path) as archive:
            yield {info.filename: _zip_member(archive, info) for info in archive.infolist()}
        return
    try:
        archive = tarfile.open(path, "r:*")  # noqa: SIM115, closed below
    except tarfile.ReadError as error:
        if start != GZIP:
            raise DataError(f"{path.name}: not a tar, zip or gzip archive.") from error
        yield {path.stem: Member(partial(gzip.open, path), 0)}
        return
    with archive:
        members = {
            info.name: Member(partial(archive.extractfile, info), info.size, _tar_kind(info))
            for info in archive
        }
        # tar stops at its end mark; the checksum of what it was compressed by comes after it
        while archive.fileobj.read(BLOCK):
            pass
        yield members


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isreg():
        return "file"
    return "folder" if info.isdir() else "other"


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    if info.flag_bits & 1:
        raise DataError(f"{info.filename}: is encrypted in the archive; refused.")
    kind = "other" if stat.S_ISLNK(info.external_attr >> 16) else "file"
    if info.is_dir():
        kind = "folder"
    return Member(partial(archive.open, info), info.file_size, kind)


def _all_files(archive: Path, available: Mapping[str, Member]) -> dict[str, str]:
    """Every regular file that is not hidden: path without the folders all lie in -> path."""
    found = {}
    for path, member in available.items():
        parts = PurePosixPath(path.replace("\\", "/")).parts
        if member.kind == "other":
            log.warning("%s: %s is a link or the like; left out", archive.name, path)
        elif member.kind == "file" and not any(part.startswith(HIDDEN) for part in parts):
            found[parts] = path
    if not found:
        raise DataError(f"{archive.name}: holds no file.")
    while all(len(parts) > 1 for parts in found) and len({parts[0] for parts in found}) == 1:
        found = {parts[1:]: path for parts, path in found.items()}
    return {"/".join(parts): path for parts, path in found.items()}


def _check_wanted(archive: Path, available: Mapping[str, Member], paths: Iterable[str]) -> None:
    for path in paths:
        if path not in available:
            raise DataError(f"{archive.name}: has no member {path}.")
        if available[path].kind != "file":
            raise DataError(f"{path}: is a link, folder or device in the archive; refused.")


def _check_paths(archive: Path, names: Mapping[str, Member]) -> None:
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            raise DataError(f"{archive.name}: member {name!r} leads out of the folder; refused.")
