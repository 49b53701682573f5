"""Unpacking a tar, zip or gzip archive that is not trusted, and the room on the disk for it."""

from __future__ import annotations

import gzip
import logging
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from haste.errors import DataError
from haste.files import is_full, reading

log = logging.getLogger(__name__)

BLOCK = 1 << 20
MORE_ROOM = "Make room, or choose another disk (data_dir of the configuration)."
ZIP = b"PK"
GZIP = b"\x1f\x8b"


class NoRoomError(DataError):
    """The disk is too small; the archive may well be whole."""


def extract(archive: Path, members: Collection[str], folder: Path, limit: int) -> None:
    """Unpack `members`, paths in the archive, under these paths into `folder`; without any, all files.

    What is no regular file, such as a link, is left out. The kind of archive is told by its content.
    Raises DataError when the archive is damaged, encrypted or lacks a member, when a path in it is
    absolute or has "..", when there is no room on the disk, and when the files are larger than `limit`
    bytes together.
    """
    with reading(archive, "an archive (tar, zip or gzip) that can be unpacked here"):
        with archive.open("rb") as stream:
            start = stream.read(2)
        if start == ZIP:
            _extract_zip(archive, members, folder, limit)
        elif tarfile.is_tarfile(archive):
            _extract_tar(archive, members, folder, limit)
        elif start == GZIP:
            _extract_gzip(archive, folder, limit)
        else:
            raise ValueError("of no known kind")


def _extract_zip(path: Path, members: Collection[str], folder: Path, limit: int) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {}
        for info in archive.infolist():
            # the kind of file is 0 where another system than Unix wrote it
            if info.is_dir() or stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                _leave_out(path, info.filename, is_folder=info.is_dir())
                continue
            # as some archives of Windows have it
            info.filename = info.filename.replace("\\", "/")
            files[info.filename] = info
        sizes = {name: info.file_size for name, info in files.items()}
        chosen = _choose(path, sizes, members, folder, limit)
        # no more is read of a member than its size
        with disk_errors(folder):
            archive.extractall(folder, [files[name] for name in chosen])


def _extract_tar(path: Path, members: Collection[str], folder: Path, limit: int) -> None:
    with tarfile.open(path) as archive:
        files = {}
        for info in archive:
            if info.isreg():
                files[info.name] = info
            else:
                _leave_out(path, info.name, is_folder=info.isdir())
        # tar stops at its end mark; the checksum of what it was compressed by comes after it
        while archive.fileobj.read(BLOCK):
            pass
        sizes = {name: info.size for name, info in files.items()}
        chosen = _choose(path, sizes, members, folder, limit)
        with disk_errors(folder):
            # of files alone, with names that were checked; tarfile's own filters came with Python 3.11.4
            for name in chosen:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                stream = archive.extractfile(files[name])
                if stream is not None:
                    with stream, target.open("wb") as file:
                        shutil.copyfileobj(stream, file, BLOCK)


def _extract_gzip(path: Path, folder: Path, limit: int) -> None:
    target, size = folder / path.stem, 0
    with gzip.open(path) as stream, disk_errors(target), target.open("wb") as file:
        while block := stream.read(BLOCK):
            size += len(block)
            _check_size(path, size, limit)
            file.write(block)


def _leave_out(archive: Path, name: str, *, is_folder: bool) -> None:
    if not is_folder:
        log.warning("%s: %s is a link or a device; left out", archive.name, name)


def _choose(
    archive: Path, sizes: Mapping[str, int], members: Collection[str], folder: Path, limit: int
) -> Collection[str]:
    """The files to unpack, of those with these sizes; raises DataError, see `extract`."""
    for name in sizes:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or parts[:1] == ("/",) or (parts and ":" in parts[0]):
            raise DataError(f"{archive.name}: member {name!r} leads out of the folder; refused.")
    for name in members:
        if name not in sizes:
            raise DataError(f"{archive.name}: has no file {name}.")
    chosen = members or sizes.keys()
    size = sum(sizes[name] for name in chosen)
    _check_size(archive, size, limit)
    check_room(folder, size)
    return chosen


def _check_size(archive: Path, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(
            f"{archive.name}: its members unpack to more bytes than the registry's `unpacked` allows, "
            f"{limit}; refused."
        )


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Errors of the disk become DataErrors that name the target, which not all of them do."""
    try:
        yield
    except OSError as error:
        if is_full(error):
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
