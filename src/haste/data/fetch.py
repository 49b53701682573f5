"""Fetching a source: download, check, unpack what is needed, and write down where it came from."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from haste.data.archives import NoRoomError, check_room, disk_errors, extract
from haste.data.download import download as download_origin
from haste.data.lock import hold_to_lock
from haste.data.registry import Origin, Source
from haste.errors import DataError
from haste.files import read_json, reading, sha256, write_json
from haste.paths import LOCK

log = logging.getLogger(__name__)

RECORD = "SOURCE.json"
HIDDEN = (".", "__MACOSX")
"""how names of files begin that are none of a data set"""
LOCAL = "local"
"""`via` of files that the user had already"""


@dataclass(frozen=True)
class SourceRecord:
    """SOURCE.json: what was fetched, from where and when."""

    name: str
    via: str
    """of the origin; local: files that the user had already"""
    size: int
    sha256: str
    """of the archive; of a folder, of the list of its files' digests"""
    licence: str
    terms: str
    fetched: str
    """UTC, ISO 8601"""
    members: Mapping[str, Mapping[str, Any]]
    """by path in the folder: size and sha256"""
    file: str = ""
    """the archive's name; empty for a folder"""
    package: str = ""
    version: str = ""
    url: str = ""


Download = Callable[[Origin, Path], None]
"""puts an origin's archive, or the members of its folder, into a folder"""


def fetch(
    source: Source, out: Path | str, download: Download = download_origin, lock: Path | None = None
) -> bool:
    """Bring the files of `source` into the folder `out`; False when they are there already.

    Nothing is used before its size and sha256 are right, and `out` changes only once all files are
    there. One process at a time fetches a source; another waits for it. Where the registry has no
    sha256, `lock` holds what was fetched first (datasets.lock.yaml beside `out` unless given). Raises
    DataError with the reason of each origin when none could be had.
    """
    out = Path(out)
    _log_licence(source)
    before = _written(out)
    if is_complete(source, out):
        log.info("%s: already in %s, checked", source.name, out)
        return False
    reasons = []
    with _alone(source, out):
        if _written(out) != before and is_complete(source, out):
            log.info("%s: another process has fetched it into %s", source.name, out)
            return False
        for origin in source.origins:
            try:
                _fetch_origin(source, origin, out, lock or out.parent / LOCK, download)
            except DataError as error:
                log.warning("%s: not from %s: %s", source.name, origin, error)
                reasons.append(f"{origin}: {error}")
            else:
                log.info("%s: fetched from %s into %s", source.name, origin, out)
                return True
    raise DataError(f"{source.name}: could not be fetched. " + " | ".join(reasons))


def take(source: Source, source_path: Path | str, out: Path | str) -> None:
    """Make `out` of the user's own copy of `source`: its archive, or a folder with its files.

    An archive whose sha256 the registry knows is unpacked as the registry says, another one whole.
    `source_path` is copied, and stays. Raises DataError when it is missing, damaged or too large.
    """
    source_path, out = Path(source_path), Path(out)
    _log_licence(source)
    with _alone(source, out), _staging(source, out) as staging:
        archive: dict[str, Any] = {}
        if source_path.is_dir():
            copied = _files_below(source_path)
            check_room(staging, sum(path.stat().st_size for path in copied.values()))
            for name, path in copied.items():
                _copy(path, staging / name)
            files = {name: staging / name for name in copied}
        elif source_path.is_file():
            digest = sha256(source_path)
            known = next((origin for origin in source.origins if origin.sha256 == digest), None)
            if known is None:
                log.warning("%s: the registry does not know its sha256, %s", source_path, digest)
            limit = max(origin.unpacked for origin in source.origins)
            files = _unpack(source_path, known.members if known else {}, staging, limit)
            archive = {
                "file": source_path.name,
                "size": source_path.stat().st_size,
                "sha256": digest,
            }
        else:
            raise DataError(
                f"{source_path}: no such file or folder. Give the archive of {source.name}, or its files."
            )
        _install(source, files, _digests(files), out, {"via": LOCAL, **archive})
    log.info("%s: taken from %s into %s", source.name, source_path, out)


def is_complete(source: Source, out: Path) -> bool:
    """Whether `out` holds the files of one of the origins as they were fetched, or the user's own."""
    if not (out / RECORD).is_file():
        return False
    try:
        record = verify(out)
    except DataError as error:
        log.warning("%s; fetching again", error)
        return False
    return record.via == LOCAL or any(
        (not origin.members or origin.members.keys() == record.members.keys())
        and (origin.sha256 == record.sha256 if origin.sha256 else origin.url == record.url)
        for origin in source.origins
    )


def verify(folder: Path | str) -> SourceRecord:
    """What SOURCE.json says, once every file named in it has its size and sha256.

    Raises DataError naming the first file that is missing or differs.
    """
    folder = Path(folder)
    value = read_json(folder / RECORD, "haste fetch")
    with reading(folder / RECORD, "the record of a fetched source", "haste fetch"):
        record = SourceRecord(**value)
        members = {name: (int(m["size"]), str(m["sha256"])) for name, m in record.members.items()}
    advice = f"Run: haste fetch {record.name} --out {folder}"
    for name, (size, digest) in members.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path}: missing. {advice}")
        _check_file(path, size, digest, advice)
    return record


def _fetch_origin(
    source: Source, origin: Origin, out: Path, lock: Path, download: Download
) -> None:
    with _staging(source, out) as staging, _downloads(source, origin, out) as downloads:
        check_room(downloads, origin.size + origin.unpacked * bool(origin.size))
        download(origin, downloads)
        place = {key: getattr(origin, key) for key in ("via", "package", "version", "url")}
        if origin.is_folder:
            files = {name: downloads / name for name in origin.members}
        else:
            archive = downloads / origin.archive
            place |= {"file": archive.name, "sha256": _check_archive(archive, origin)}
            place["size"] = archive.stat().st_size
            files = _unpack(archive, origin.members, staging, origin.unpacked)
        digests = _digests(files)
        for name, expected in origin.digests.items():
            if digests.get(name) != expected:
                actual = digests.get(name, "no such file")
                raise DataError(f"{name}: wrong sha256: expected {expected}, found {actual}.")
        if not origin.sha256:
            hold_to_lock(lock, source.name, str(origin), digests)
        _install(source, files, digests, out, place)


def _unpack(archive: Path, members: Mapping[str, str], folder: Path, limit: int) -> dict[str, Path]:
    """The files of an archive by the names they get: `members` (name -> path in it), or all."""
    extract(archive, members.values(), folder, limit)
    return {name: folder / path for name, path in members.items()} or _files_below(folder)


def _files_below(folder: Path) -> dict[str, Path]:
    """All files but hidden ones and the record of another machine, by their path below the folder that
    all of them lie in; raises DataError when there is none."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != RECORD
        and not any(part.startswith(HIDDEN) for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise DataError(f"{folder}: holds no file.")
    root = os.path.commonpath([path.parent for path in paths])
    return {path.relative_to(root).as_posix(): path for path in paths}


def _copy(path: Path, target: Path) -> None:
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _written(out: Path) -> float | None:
    """When the record of a folder was written; None where there is none."""
    record = out / RECORD
    return record.stat().st_mtime if record.is_file() else None


def _alone(source: Source, out: Path) -> FileLock:
    """One process at a time works on the files beside `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(out.parent / f".{source.name}.lock")


@contextmanager
def _staging(source: Source, out: Path) -> Iterator[Path]:
    """A folder beside `out`, so that files can be renamed into it; gone at the end. What a process left
    in it that was killed goes first."""
    folder = out.parent / f".{source.name}-unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _downloads(source: Source, origin: Origin, out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is downloaded.

    What came whole goes at the end, unless there was no room to unpack it; what was cut stays, to be
    resumed.
    """
    key = hashlib.sha256(str(origin).encode()).hexdigest()[:8]
    folder = out.parent / f".{source.name}-{key}-download"
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    except NoRoomError:
        raise
    except DataError:
        for path in folder.iterdir():
            if ".part" not in path.suffixes:
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    else:
        shutil.rmtree(folder)


def _check_archive(archive: Path, origin: Origin) -> str:
    """The archive's sha256, once it is right."""
    if not archive.is_file():
        names = ", ".join(sorted(p.name for p in archive.parent.iterdir())) or "nothing"
        raise DataError(f"expected the file {archive.name}, got {names}.")
    advice = (
        "Run again; if it stays so, what is offered has changed: compare it with datasets.yaml."
    )
    return _check_file(archive, origin.size, origin.sha256, advice)


def _check_file(path: Path, size: int, digest: str, advice: str) -> str:
    """A file's sha256, once that and its size are right, each where it is known."""
    actual_size = path.stat().st_size
    if size and actual_size != size:
        what = "truncated" if actual_size < size else "too long"
        raise DataError(
            f"{path.name}: {what}: expected {size} bytes, found {actual_size}. {advice}"
        )
    actual = sha256(path)
    if digest and actual != digest:
        raise DataError(f"{path.name}: wrong sha256: expected {digest}, found {actual}. {advice}")
    return actual


def _install(
    source: Source,
    files: Mapping[str, Path],
    digests: Mapping[str, str],
    out: Path,
    place: Mapping[str, Any],
) -> None:
    """Rename `files` (name -> path) into `out`, and write the record; `place`: its fields about where they
    are from, and the archive where there is one."""
    out.mkdir(exist_ok=True)
    # files of two origins must not be mixed
    former = {name for origin in source.origins for name in origin.members}
    with suppress(DataError, KeyError, TypeError, AttributeError):
        former |= read_json(out / RECORD)["members"].keys()
    for name in (RECORD, *former):
        if ".." not in PurePosixPath(name).parts:
            (out / name).unlink(missing_ok=True)
    members: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        size = path.replace(target).stat().st_size
        members[name] = {"size": size, "sha256": digests[name]}
    listed = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    folder = {
        "size": sum(member["size"] for member in members.values()),
        "sha256": hashlib.sha256(listed.encode()).hexdigest(),
    }
    record = SourceRecord(
        name=source.name,
        licence=source.licence,
        terms=source.terms,
        fetched=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        members=members,
        **{**folder, **place},
    )
    write_json(out / RECORD, dataclasses.asdict(record))


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: sha256(path) for name, path in sorted(files.items())}


def _log_licence(source: Source) -> None:
    log.info("%s: licence of the data: %s. %s", source.name, source.licence, source.terms)
