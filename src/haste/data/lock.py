"""What was fetched from where no digest was known: trusted the first time, held to it ever after."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from haste.errors import DataError
from haste.files import read_yaml, reading, write_yaml


def hold_to_lock(path: Path, source: str, origin: str, digests: Mapping[str, str]) -> None:
    """Compare `digests` (file name -> sha256) with those that the file `path` has of this source and
    origin; the first time they are written down.

    The file can be copied to another machine, or kept with a project, so that all use the same data.
    Raises DataError that shows both digests of the first file that differs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # sources are fetched at the same time
    with FileLock(path.with_name(f".{path.name}.lock")):
        # no file is asked for before it is held: another process may just write the first entry
        if not path.is_file():
            write_yaml(path, {source: {origin: _entry(digests)}})
            return
        with reading(path, "a lock of fetched files"):
            entries = read_yaml(path) or {}
            origins = entries.setdefault(source, {})
            if origin not in origins:
                origins[origin] = _entry(digests)
                write_yaml(path, entries)
                return
            _compare(path, origin, origins[origin], digests)


def _entry(digests: Mapping[str, str]) -> dict[str, Any]:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"fetched": today, "files": dict(sorted(digests.items()))}


def _compare(path: Path, origin: str, entry: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    known = entry["files"]
    for name in sorted(known.keys() | digests.keys()):
        was, now = known.get(name, "no such file"), digests.get(name, "no such file")
        if was != now:
            raise DataError(
                f"{name}: not what {origin} gave on {entry['fetched']}: sha256 was {was}, is {now}. If "
                f"the change is meant, remove its entry from {path}."
            )
