"""What was fetched from where no digest was known: trusted the first time, held to it ever after."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from haste.errors import DataError
from haste.files import read_yaml, reading, write_yaml


class SourceLock:
    """A file with the digest of every file that was fetched, by source and origin.

    It can be copied to another machine, or kept with a project, so that all use the same data.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def check(self, source: str, origin: str, found: Mapping[str, str]) -> None:
        """Hold `found` (file name -> sha256) to what was written down; nothing happens the first time.

        Raises DataError that shows both digests of the first file that differs.
        """
        entry = self._read().get(source, {}).get(origin)
        if entry is None:
            return
        known = entry["files"]
        for name in sorted(known.keys() | found.keys()):
            was, now = known.get(name, "no such file"), found.get(name, "no such file")
            if was != now:
                raise DataError(
                    f"{name}: not what {origin} gave on {entry['fetched']}: sha256 was {was}, is {now}. "
                    f"If the change is meant, remove its entry from {self.path}."
                )

    def write(self, source: str, origin: str, found: Mapping[str, str]) -> None:
        """Write down the digests of an origin, unless they are there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # sources are fetched at the same time
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            entries = self._read()
            today = datetime.datetime.now(datetime.UTC).date().isoformat()
            entry = {"fetched": today, "files": dict(sorted(found.items()))}
            entries.setdefault(source, {}).setdefault(origin, entry)
            write_yaml(self.path, entries)

    def _read(self) -> dict[str, dict[str, dict]]:
        if not self.path.is_file():
            return {}
        entries = read_yaml(self.path) or {}
        with reading(self.path, "a lock of fetched files"):
            for origins in entries.values():
                for entry in origins.values():
                    dict(entry["files"])
                    str(entry["fetched"])
        return entries
