"""A zip of results: its names, its manifest, and reading it."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from haste.errors import DataError
from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.presets import method
from haste.runs import run_files

MANIFEST = "manifest.json"
AGAIN = "Make it again by haste export-results, and copy it whole."
"""what to do about a damaged archive"""
MAX_RATIO = 20
"""of the members' bytes to those of the zip; settings, histories and metrics shrink to a third"""
ALLOWED_BYTES = 64 << 20
"""that the members may have in any case"""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


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


class RunEntry(BaseModel):
    """What the manifest says of a run."""

    model_config = ConfigDict(strict=True, frozen=True)
    dataset: str
    method: str
    variant: str
    seed: int
    inputs: Sha256 | None
    """digest of what it was trained from, see haste.runs.input_digest; None in archives of format 1,
    which have another digest here that is not computed any more"""
    columns: Annotated[int, Field(ge=0)]
    """predictions kept a document; 0 for a trial, of which none are"""

    @property
    def key(self) -> RunKey:
        """Which run of a grid it is."""
        return RunKey(self.dataset, self.method, self.variant, self.seed)


class Manifest(BaseModel):
    """manifest.json."""

    model_config = ConfigDict(strict=True, frozen=True)
    format: Literal[1, 2] = 2
    grid: str
    machine: Mapping[str, str]
    """where the archive was made, see haste.resources.machine"""
    members: Mapping[str, Sha256]
    """name -> sha256 of the content"""
    runs: list[RunEntry]

    @model_validator(mode="before")
    @classmethod
    def _without_former_digests(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("format") == 1:
            return {**value, "runs": [{**run, "inputs": None} for run in value["runs"]]}
        return value


class Archive:
    """An archive of a grid's runs that is read; every error names it."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, grid: GridConfig) -> None:
        """Raises DataError where its members are not just those of the runs in its manifest, a run is
        not one of the grid, or the members would unpack to more than results do."""
        self.path, self._zip = path, archive
        names = archive.namelist()
        if MANIFEST not in names:
            raise DataError(f"{path}: there is no {MANIFEST} in it. {AGAIN}")
        # no more of a member is read than its entry says
        size, packed = sum(info.file_size for info in archive.infolist()), path.stat().st_size
        if size > max(ALLOWED_BYTES, MAX_RATIO * packed):
            raise DataError(
                f"{path}: unpacks to {size / 2**20:.0f} MiB from {packed / 2**20:.1f} MiB, as no results "
                f"do; nothing was taken. {AGAIN}"
            )
        try:
            self.manifest = Manifest.model_validate_json(archive.read(MANIFEST))
        except (ValidationError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}: {MANIFEST} is damaged, or of another version of haste ({described(error)}). {AGAIN}"
            ) from error
        known = set(trained_runs(grid))
        expected: set[str] = set()
        for run in self.manifest.runs:
            if run.key not in known:
                raise DataError(
                    f"{path}: {MANIFEST} names {run.key.name}, which is no run of the grid {grid.name}; "
                    "nothing was taken. Give the grid that the archive was made from."
                )
            expected |= run_members(RunDir(Path()), run.key).keys()
        for where, present in (("the zip", names), (MANIFEST, [MANIFEST, *self.manifest.members])):
            if len(set(present)) < len(present):
                raise DataError(f"{path}: a name is there twice; nothing was taken. {AGAIN}")
            for name in sorted({MANIFEST, *expected} ^ set(present)):
                problem = "is missing" if name in expected else "is of no run in the manifest"
                raise DataError(f"{path}: {name} in {where} {problem}; nothing was taken. {AGAIN}")

    def read(self, name: str) -> bytes:
        """The content of a member; raises DataError where it is of another sha256 than the manifest's."""
        content = self._zip.read(name)
        if hashlib.sha256(content).hexdigest() != self.manifest.members[name]:
            raise DataError(
                f"{self.path}: {name} does not have the sha256 of {MANIFEST}; nothing was taken. {AGAIN}"
            )
        return content


@contextlib.contextmanager
def opened(path: Path, grid: GridConfig) -> Iterator[Archive]:
    """An archive to read; whatever is wrong with it as a zip is a DataError that names it."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the zip that haste export-results wrote.")
    try:
        with zipfile.ZipFile(path) as archive:
            yield Archive(path, archive, grid)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path}: not a zip, or damaged ({error}). {AGAIN}") from error


def described(error: Exception) -> str:
    """What is wrong, in one line: of values that do not fit a model, where each of the first stands."""
    if isinstance(error, DataError):
        return str(error).rstrip(".")
    if isinstance(error, ValidationError):
        details = error.errors()[:3]
        return "; ".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in details)
    return f"{type(error).__name__}: {error}"
