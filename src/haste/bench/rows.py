"""Writes the rows of a benchmark, in a folder per device."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from haste.files import atomic


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a csv of these columns; None is an empty cell."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def rounded(row: Mapping[str, object]) -> dict[str, object]:
    """A row with its fractions to five digits."""
    return {
        name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()
    }


def slug(device: str) -> str:
    """The name of a device's folder: NVIDIA H200 is nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
