"""What lies in a zip of results: names, the manifest, and how both are checked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from haste.errors import DataError
from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.presets import method
from haste.report.registry import run_files

MANIFEST = "manifest.json"
FORMAT = 1
RUN_NAMES = tuple(field.name for field in fields(RunKey))
AGAIN = "Make it again by haste export-results, and copy it whole."
"""what to do about a damaged archive"""
SMALL = 1 << 20
"""bytes that a member may have whatever it takes in the zip"""
MAX_RATIO = 50
"""of a member's bytes to those it takes in the zip; settings, histories and metrics shrink to a third"""
MAX_RATIO_IN_ALL = 20
"""the same of all members together, ..."""
MOST_IN_ALL = 64 << 20
"""... which may have so many bytes in any case"""


def member_name(key: RunKey, file: str) -> str:
    """The name of a run's file in an archive."""
    return f"runs/{key.name}/{file}"


def run_members(run: RunDir, key: RunKey) -> dict[str, Path]:
    """What an archive has of a run, member -> file: all that tables and figures read, so no weights,
    and of a trial no predictions."""
    return {member_name(key, path.name): path for path in run_files(run, key)}


def trained_runs(grid: GridConfig) -> list[RunKey]:
    """The runs of a grid that an archive may have: all but those of linear methods, and its trials."""
    keys = [*grid.runs(), *grid.trial_runs()]
    return [key for key in keys if method(key.method).kind == "trained"]


@dataclass(frozen=True)
class RunEntry:
    """What the manifest says of a run."""

    config: str
    """sha256 of the settings that decide its numbers"""
    inputs: str
    """digest of what it was trained from, see haste.transfer.digests"""
    columns: int
    """predictions kept a document; 0 for a trial, of which none are"""

    def __post_init__(self) -> None:
        for name in ("config", "inputs"):
            if not _is_sha256(getattr(self, name)):
                raise ValueError(f"{name}: {getattr(self, name)!r} is no sha256")
        if type(self.columns) is not int or self.columns < 0:
            raise ValueError(f"columns: {self.columns!r} is no count")


@dataclass(frozen=True)
class Manifest:
    """manifest.json."""

    grid: str
    machine: Mapping[str, str]
    """where the archive was made, see haste.resources.machine"""
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
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path}: not a zip, or damaged ({error}). {AGAIN}") from error


def read_manifest(archive: zipfile.ZipFile, path: Path, grid: GridConfig) -> Manifest:
    """The manifest of an archive, which has just the members that it lists.

    Raises DataError for names outside the layout (results of the grid's trained runs, as plain files; of
    trials no predictions), runs that the grid has not, and members that are missing or not in the
    manifest.
    """
    infos = archive.infolist()
    names = [info.filename for info in infos]
    expected = {key: set(run_members(RunDir(Path()), key)) for key in trained_runs(grid)}
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
    manifest = Manifest.from_json(_unpack(archive, path, MANIFEST), path)
    for key in manifest.runs:
        if key not in expected:
            raise DataError(
                f"{path}: {MANIFEST} names {key.name}, which is no run of the grid {grid.name}; "
                "nothing was taken. Give the grid that the archive was made from."
            )
    listed = set().union(*(expected[key] for key in manifest.runs))
    for name in sorted({*names, *listed, *manifest.members} - {MANIFEST}):
        if name not in names or name not in listed or name not in manifest.members:
            where = "in the zip" if name not in names else f"in {MANIFEST}"
            raise DataError(f"{path}: {name} is not {where}; nothing was taken. {AGAIN}")
    return manifest


class MemberReader:
    """Reads the members of an archive, each with the sha256 of the manifest, while all that was read
    stays small."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, manifest: Manifest) -> None:
        self.archive, self.path, self.manifest = archive, path, manifest
        self.left = max(MOST_IN_ALL, MAX_RATIO_IN_ALL * path.stat().st_size)

    def __call__(self, name: str) -> bytes:
        """The content of a member; raises DataError where it is too large or of another sha256."""
        content = _unpack(self.archive, self.path, name, self.left)
        self.left -= len(content)
        if hashlib.sha256(content).hexdigest() != self.manifest.members[name]:
            raise DataError(
                f"{self.path}: {name} does not have the sha256 of {MANIFEST}; nothing was taken. {AGAIN}"
            )
        return content


def _unpack(archive: zipfile.ZipFile, path: Path, name: str, left: int | None = None) -> bytes:
    """A member's content, if it is no larger than its part of the zip lets expect.

    What is counted is what comes out: sizes in headers are those that whoever made the zip wrote there.
    """
    packed = min(archive.getinfo(name).compress_size, path.stat().st_size)
    limit = max(SMALL, MAX_RATIO * packed)
    if left is not None:
        limit = min(limit, left)
    with archive.open(name) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise DataError(
            f"{path}: {name} unpacks to more than {limit / SMALL:.0f} MiB from {packed / SMALL:.1f} MiB, as "
            f"no results do; nothing was taken. {AGAIN}"
        )
    return content


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
