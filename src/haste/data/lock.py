"""What was fetched from where no digest was known: trusted the first time, held to it ever after."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping
from pathlib import Path

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
    is_new = not path.is_file()
    checked = contextlib.nullcontext() if is_new else reading(path, "a lock of fetched files")
    # sources are fetched at the same time
    with FileLock(path.with_name(f".{path.name}.lock")), checked:
        entries = {} if is_new else read_yaml(path) or {}
        origins = entries.setdefault(source, {})
        if origin not in origins:
            today = datetime.datetime.now(datetime.UTC).date().isoformat()
            origins[origin] = {"fetched": today, "files": dict(sorted(digests.items()))}
            write_yaml(path, entries)
            return
        known = origins[origin]["files"]
        for name in sorted(known.keys() | digests.keys()):
            was, now = known.get(name, "no such file"), digests.get(name, "no such file")
            if was != now:
                raise DataError(
                    f"{name}: not what {origin} gave on {origins[origin]['fetched']}: sha256 was {was}, "
                    f"is {now}. If the change is meant, remove its entry from {path}."
                )
