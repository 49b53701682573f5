"""Taking files out of a tar, zip or gzip archive that is not trusted."""

from __future__ import annotations

import errno
import gzip
import logging
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from haste.errors import DataError

log = logging.getLogger(__name__)

BLOCK = 1 << 20
MORE_ROOM = "Make room, or choose another disk (data_dir of the configuration)."
MAX_FILES = 10_000
"""an archive of a data set has dozens; one with more than this is refused"""
DEEPEST = 64
"""folders in one another; data sets have two or three"""
LONGEST_NAME = 255
"""bytes of one name, on the usual file systems"""
HIDDEN = (".", "__MACOSX")
ZIP = b"PK"
ZIP_KINDS = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
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
    """file, folder, link or device (a pipe and the like)"""


def extract(archive: Path, members: Mapping[str, str], folder: Path, limit: int) -> None:
    """Write `members` (name -> path in the archive) into `folder`, which must exist.

    Without `members` all regular files are written under their paths, less the folders that all of
    them lie in; hidden files and links are left out. The kind of archive is told by its content.
    Raises DataError when the archive is damaged or lacks a member, when any path in it is absolute,
    has ".." or cannot be a file's here, when a wanted member is a link or the like or any is a device,
    when there is no room on the disk, and when the files are larger than `limit` bytes together,
    counted while unpacking, whatever the archive claims.
    """
    try:
        with _opened(archive) as available:
            _check_paths(archive, available)
            if len(available) > MAX_FILES:
                raise DataError(f"{archive.name}: has {len(available)} members; refused.")
            chosen = members or _all_files(archive, available)
            _check_wanted(archive, available, chosen.values())
            _check_names(archive, chosen)
            check_room(folder, sum(available[path].size for path in chosen.values()))
            for name, path in chosen.items():
                with available[path].open() as stream:
                    limit -= _copy(stream, folder / name, limit, archive)
    except (DataError, MemoryError):
        raise
    except NotImplementedError as error:
        raise DataError(
            f"{archive.name}: is packed in a way that is not known here ({error}). Unpack it, and give the "
            "folder."
        ) from error
    except OSError as error:
        if error.errno is None:
            raise _damaged(archive, error) from error
        raise DataError(f"{archive}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # the libraries raise whatever they stumble on
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> DataError:
    what = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{archive.name}: damaged archive ({what}). Replace it by a whole copy.")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into a folder that is made; raises DataError that names the target."""
    with source.open("rb") as stream, _writing(target) as file:
        shutil.copyfileobj(stream, file, BLOCK)


@contextmanager
def _writing(target: Path) -> Iterator[IO[bytes]]:
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            yield file


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Errors of the disk become DataErrors that name the target, which not all of them do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomError(f"{target}: the disk is full. {MORE_ROOM}") from error
        if error.errno is None:
            raise
        raise DataError(f"{target}: cannot be written ({error.strerror}).") from error


def check_room(folder: Path, needed: int) -> None:
    """Raise NoRoomError when the disk of `folder` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoRoomError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free. {MORE_ROOM}"
        )


def _copy(stream: IO[bytes], target: Path, limit: int, archive: Path) -> int:
    size = 0
    with _writing(target) as file:
        while block := stream.read(BLOCK):
            size += len(block)
            if size > limit:
                raise DataError(
                    f"{archive.name}: its members unpack to more bytes than the registry's `unpacked` "
                    "allows; refused."
                )
            file.write(block)
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
    if info.isdir():
        return "folder"
    return "link" if info.issym() or info.islnk() else "device"


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    if info.flag_bits & 1:
        raise DataError(f"{info.filename}: is encrypted in the archive; refused.")
    # 0 where another system than Unix wrote it
    mode = stat.S_IFMT(info.external_attr >> 16)
    kind = ZIP_KINDS.get(mode, "device")
    if info.is_dir():
        kind = "folder"
    return Member(partial(archive.open, info), info.file_size, kind)


def _all_files(archive: Path, available: Mapping[str, Member]) -> dict[str, str]:
    """Every regular file that is not hidden: path without the folders all lie in -> path."""
    paths = {}
    for path, member in available.items():
        parts = PurePosixPath(path.replace("\\", "/")).parts
        if member.kind == "device":
            raise DataError(f"{archive.name}: {path} is a device or a pipe; refused.")
        if member.kind == "link":
            log.warning("%s: %s is a link; left out", archive.name, path)
        elif member.kind == "file" and not any(part.startswith(HIDDEN) for part in parts):
            paths[parts] = path
    if not paths:
        raise DataError(f"{archive.name}: holds no file.")
    while all(len(parts) > 1 for parts in paths) and len({parts[0] for parts in paths}) == 1:
        paths = {parts[1:]: path for parts, path in paths.items()}
    return {"/".join(parts): path for parts, path in paths.items()}


def _check_wanted(archive: Path, available: Mapping[str, Member], paths: Iterable[str]) -> None:
    for path in paths:
        if path not in available:
            raise DataError(f"{archive.name}: has no member {path}.")
        if available[path].kind != "file":
            raise DataError(f"{path}: is a link, folder or device in the archive; refused.")


def _check_names(archive: Path, names: Iterable[str]) -> None:
    """Raise DataError for names that cannot all be files of one folder."""
    files = {PurePosixPath(name).parts for name in names}
    for parts in files:
        if not parts or len(parts) > DEEPEST:
            raise DataError(f"{archive.name}: a member lies {len(parts)} folders deep; refused.")
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in parts):
            raise DataError(f"{archive.name}: the name {parts[-1][:40]}... is too long; refused.")
        above = next((parts[:n] for n in range(1, len(parts)) if parts[:n] in files), None)
        if above:
            raise DataError(
                f"{archive.name}: {'/'.join(above)} is both a file and a folder; refused."
            )


def _check_paths(archive: Path, names: Mapping[str, Member]) -> None:
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            raise DataError(f"{archive.name}: member {name!r} leads out of the folder; refused.")
