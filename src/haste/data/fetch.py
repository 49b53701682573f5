"""Fetching a source: download, check, unpack what is needed, and write down where it came from."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from haste.data import download as downloading
from haste.data.archives import NoRoomError, check_room, copy_file, extract
from haste.data.lock import SourceLock
from haste.data.registry import Origin, Source
from haste.errors import DataError
from haste.files import read_json, reading, sha256, write_json
from haste.paths import LOCK

log = logging.getLogger(__name__)

RECORD = "SOURCE.json"
LOCAL = "local"
"""`via` of files that the user had already"""


@dataclass(frozen=True)
class SourceRecord:
    """SOURCE.json: what was fetched, from where and when."""

    name: str
    via: str
    """of the origin; local: files that the user had already"""
    package: str
    version: str
    file: str
    """the archive's name; empty for a folder"""
    size: int
    sha256: str
    """of the archive; of a folder, of the list of its files' digests"""
    licence: str
    terms: str
    fetched: str
    """UTC, ISO 8601"""
    members: Mapping[str, Mapping[str, Any]]
    """by path in the folder: size and sha256"""
    url: str = ""


Download = Callable[[Origin, Path], None]
"""puts an origin's archive, or the members of its folder, into a folder"""


def fetch(
    source: Source, out: Path | str, download: Download | None = None, lock: Path | None = None
) -> bool:
    """Bring the files of `source` into the folder `out`; False when they are there already.

    Nothing is used before its size and sha256 are right, and `out` changes only once all files are
    there. Where the registry has no sha256, `lock` holds what was fetched first (datasets.lock.yaml
    beside `out` unless given). Raises DataError with the reason of each origin when none could be
    had. `download` is haste.data.download.download unless given.
    """
    out = Path(out)
    book = SourceLock(lock or out.parent / LOCK)
    _say_licence(source)
    if is_complete(source, out):
        log.info("%s: already in %s, checked", source.name, out)
        return False
    reasons = []
    for origin in source.origins:
        try:
            _fetch_origin(source, origin, out, book, download or downloading.download)
        except DataError as error:
            log.warning("%s: not from %s: %s", source.name, origin, error)
            reasons.append(f"{origin}: {error}")
        else:
            log.info("%s: fetched from %s into %s", source.name, origin, out)
            return True
    raise DataError(f"{source.name}: could not be fetched. " + " | ".join(reasons))


def take(source: Source, given: Path | str, out: Path | str) -> None:
    """Make `out` of the user's own copy of `source`: its archive, or a folder with its files.

    An archive whose sha256 the registry knows is unpacked as the registry says, another one whole.
    `given` is copied, and stays. Raises DataError when it is missing, damaged or too large.
    """
    given, out = Path(given), Path(out)
    _say_licence(source)
    with _staging(source, out) as unpacked:
        if given.is_dir():
            _copy_folder(given, unpacked)
            digests = _digests(unpacked)
            place = _folder_place(unpacked, digests)
        elif given.is_file():
            digest = sha256(given)
            known = next((each for each in source.origins if each.sha256 == digest), None)
            if known is None:
                log.warning("%s: the registry does not know its sha256, %s", given, digest)
            limit = max(each.unpacked for each in source.origins)
            extract(given, known.members if known else {}, unpacked, limit)
            digests = _digests(unpacked)
            place = {"file": given.name, "size": given.stat().st_size, "sha256": digest}
        else:
            raise DataError(
                f"{given}: no such file or folder. Give the archive of {source.name}, or its files."
            )
        place |= {"via": LOCAL, "package": "", "version": ""}
        _install(source, unpacked, digests, out, place)
    log.info("%s: taken from %s into %s", source.name, given, out)


def is_complete(source: Source, out: Path) -> bool:
    """Whether `out` holds the files of one of the origins as they were fetched, or the user's own."""
    if not (out / RECORD).is_file():
        return False
    try:
        record = verify(out)
    except DataError as error:
        log.warning("%s; fetching again", error)
        return False
    return record.via == LOCAL or any(_is_of(record, origin) for origin in source.origins)


def _is_of(record: SourceRecord, origin: Origin) -> bool:
    if origin.members and origin.members.keys() != record.members.keys():
        return False
    if origin.sha256:
        return origin.sha256 == record.sha256
    return origin.url == record.url


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
    source: Source, origin: Origin, out: Path, lock: SourceLock, download: Download
) -> None:
    with _staging(source, out) as unpacked, _downloads(source, origin, out) as downloads:
        check_room(downloads, origin.size + origin.unpacked * bool(origin.size))
        download(origin, downloads)
        if origin.is_folder:
            for name in origin.members:
                (downloads / name).replace(unpacked / name)
            digests = _digests(unpacked)
            place = _folder_place(unpacked, digests)
        else:
            archive = downloads / origin.archive
            place = {"file": archive.name, "sha256": _check_archive(archive, origin)}
            place["size"] = archive.stat().st_size
            extract(archive, origin.members, unpacked, origin.unpacked)
            digests = _digests(unpacked)
        _check_digests(origin, digests)
        if not origin.sha256:
            lock.check(source.name, str(origin), digests)
            lock.write(source.name, str(origin), digests)
        place |= {key: getattr(origin, key) for key in ("via", "package", "version", "url")}
        _install(source, unpacked, digests, out, place)


@contextmanager
def _staging(source: Source, out: Path) -> Iterator[Path]:
    """A folder beside `out`, so that files can be renamed into it; gone at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{source.name}-") as name:
        yield Path(name)


@contextmanager
def _downloads(source: Source, origin: Origin, out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is downloaded.

    What came whole goes at the end, unless there was no room to unpack it; what was cut stays, to be
    gone on with.
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
        found = ", ".join(sorted(p.name for p in archive.parent.iterdir())) or "nothing"
        raise DataError(f"expected the file {archive.name}, got {found}.")
    advice = (
        "Run again; if it stays so, what is offered has changed: compare it with datasets.yaml."
    )
    return _check_file(archive, origin.size, origin.sha256, advice)


def _check_digests(origin: Origin, found: Mapping[str, str]) -> None:
    for name, digest in origin.digests.items():
        if found.get(name) != digest:
            actual = found.get(name, "no such file")
            raise DataError(f"{name}: wrong sha256: expected {digest}, found {actual}.")


def _check_file(path: Path, size: int, digest: str, advice: str) -> str:
    """A file's sha256, once that and its size are right, each where it is known."""
    found = path.stat().st_size
    if size and found != size:
        what = "truncated" if found < size else "too long"
        raise DataError(f"{path.name}: {what}: expected {size} bytes, found {found}. {advice}")
    actual = sha256(path)
    if digest and actual != digest:
        raise DataError(f"{path.name}: wrong sha256: expected {digest}, found {actual}. {advice}")
    return actual


def _install(
    source: Source,
    unpacked: Path,
    digests: Mapping[str, str],
    out: Path,
    place: Mapping[str, Any],
) -> None:
    """Rename the files of `unpacked` into `out`; `place`: the record's fields about where from."""
    out.mkdir(exist_ok=True)
    for path in _files_of_another(source, out):  # files of two origins must not be mixed
        path.unlink(missing_ok=True)
    (out / RECORD).unlink(missing_ok=True)
    members = {}
    for name, digest in digests.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path = (unpacked / name).replace(target)
        members[name] = {"size": path.stat().st_size, "sha256": digest}
    record = SourceRecord(
        name=source.name,
        licence=source.licence,
        terms=source.terms,
        fetched=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        members=members,
        **place,
    )
    write_json(out / RECORD, dataclasses.asdict(record))


def _files_of_another(source: Source, out: Path) -> list[Path]:
    names = {name for origin in source.origins for name in origin.members}
    with suppress(DataError, KeyError, TypeError, AttributeError):
        names |= read_json(out / RECORD)["members"].keys()
    return [out / name for name in names if ".." not in PurePosixPath(name).parts]


def _copy_folder(given: Path, folder: Path) -> None:
    files = [path for path in given.rglob("*") if path.is_file() and path.name != RECORD]
    if not files:
        raise DataError(f"{given}: holds no file.")
    check_room(folder, sum(path.stat().st_size for path in files))
    for path in files:
        copy_file(path, folder / path.relative_to(given))


def _digests(folder: Path) -> dict[str, str]:
    """Path in the folder -> sha256; the record of another machine is none of the files."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / RECORD)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def _folder_place(folder: Path, digests: Mapping[str, str]) -> dict[str, Any]:
    """What the record says of many files in place of an archive."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    size = sum((folder / name).stat().st_size for name in digests)
    return {"file": "", "size": size, "sha256": hashlib.sha256(lines.encode()).hexdigest()}


def _say_licence(source: Source) -> None:
    log.info("%s: licence of the data: %s. %s", source.name, source.licence, source.terms)
