"""What lies in a zip of results: names, the manifest, and how both are checked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from haste.errors import DataError
from haste.fleet.worklist import Task, worklist
from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.reporting.needs import run_files

MANIFEST = "manifest.json"
FORMAT = 1
RUN_NAMES = tuple(field.name for field in fields(RunKey))
AGAIN = "Make it again by haste export-results, and copy it whole."
"""what to do about a damaged archive"""


def member_name(key: RunKey, file: str) -> str:
    """The name of a run's file in an archive."""
    return f"runs/{key.dataset}/{key.method}/{key.variant}/seed{key.seed}/{file}"


def run_members(run: RunDir, key: RunKey) -> dict[str, Path]:
    """What an archive has of a run, member -> file: all that tables and figures read, so no weights,
    and of a trial no predictions."""
    return {member_name(key, path.name): path for path in run_files(run, key)}


@dataclass(frozen=True)
class RunEntry:
    """What the manifest says of a run."""

    config: str
    """sha256 of the settings that decide its numbers"""
    inputs: str
    """digest of what it was trained from, see haste.fleet.digests"""
    columns: int
    """predictions kept a document; 0 for a trial, of which none are"""


@dataclass(frozen=True)
class Manifest:
    """manifest.json."""

    grid: str
    machine: Mapping[str, str]
    """where the archive was made, see haste.training.measure.machine"""
    members: Mapping[str, str]
    """name -> sha256 of the content"""
    runs: Mapping[RunKey, RunEntry]

    def to_json(self) -> str:
        """The content of manifest.json."""
        value = {
            "format": FORMAT,
            "grid": self.grid,
            "machine": dict(self.machine),
            "members": dict(self.members),
            "runs": [{**asdict(key), **asdict(entry)} for key, entry in self.runs.items()],
        }
        return json.dumps(value, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: bytes, where: Path) -> Manifest:
        """The inverse of `to_json`; raises DataError for what is not one, naming the archive."""
        try:
            value = json.loads(text)
            if value["format"] != FORMAT:
                raise DataError(
                    f"{where}: {MANIFEST} has format {value['format']!r}, this haste reads {FORMAT}. "
                    "Use the same version on both machines."
                )
            runs = {
                RunKey(*(row.pop(name) for name in RUN_NAMES)): RunEntry(**row)
                for row in value["runs"]
            }
            return cls(value["grid"], dict(value["machine"]), dict(value["members"]), runs)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{where}: {MANIFEST} is damaged ({type(error).__name__}: {error}). {AGAIN}"
            ) from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive to read; whatever is wrong with it as a zip is a DataError that names it."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the zip that haste export-results wrote.")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{path}: not a zip, or damaged ({error}). {AGAIN}") from error


def read_manifest(archive: zipfile.ZipFile, path: Path, grid: GridConfig) -> Manifest:
    """The manifest of an archive, all members of which are found to be what it says.

    Raises DataError for names outside the layout (results of the grid's trained runs, as plain files; of
    trials no predictions), runs that the grid has not, and members that are missing, not in the manifest,
    or of another sha256.
    """
    infos = archive.infolist()
    names = [info.filename for info in infos]
    expected = {task.key: set(run_members(RunDir(Path()), task.key)) for task in worklist(grid)}
    allowed = set().union(*expected.values())
    for info in infos:
        if info.filename not in (*allowed, MANIFEST):
            raise DataError(
                f"{path}: {info.filename!r} is not a file of a run of the grid {grid.name}; nothing was "
                "taken. Give the grid that the archive was made from."
            )
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise DataError(
                f"{path}: {info.filename} is a link or no plain file; nothing was taken. {AGAIN}"
            )
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a name is there twice; nothing was taken. {AGAIN}")
    if MANIFEST not in names:
        raise DataError(f"{path}: there is no {MANIFEST} in it. {AGAIN}")
    manifest = Manifest.from_json(archive.read(MANIFEST), path)
    for key in manifest.runs:
        if key not in expected:
            raise DataError(
                f"{path}: {MANIFEST} names {Task(key, '').name}, which is no run of the grid {grid.name}; "
                "nothing was taken. Give the grid that the archive was made from."
            )
    listed = set().union(*(expected[key] for key in manifest.runs))
    for name in sorted({*names, *listed, *manifest.members} - {MANIFEST}):
        if name not in names or name not in listed or name not in manifest.members:
            where = "in the zip" if name not in names else f"in {MANIFEST}"
            raise DataError(f"{path}: {name} is not {where}; nothing was taken. {AGAIN}")
        if _sha256(archive, name) != manifest.members[name]:
            raise DataError(
                f"{path}: {name} does not have the sha256 of {MANIFEST}; nothing was taken. {AGAIN}"
            )
    return manifest


def _sha256(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as stream:
        digest = hashlib.sha256()
        while block := stream.read(2**20):
            digest.update(block)
        return digest.hexdigest()


def parse(archive: zipfile.ZipFile, path: Path, name: str, read: Callable) -> Any:
    """A member's content, read by `read` (json.loads, say); raises DataError."""
    try:
        return read(archive.read(name))
    except Exception as error:
        raise DataError(f"{path}: {name} cannot be read ({error}). {AGAIN}") from error
