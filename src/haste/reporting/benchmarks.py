"""Committed benchmark files, results/benchmarks/<device>/{kernels,scale}.csv."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from haste.errors import DataError
from haste.files import reading
from haste.reporting.table import Cell

SHAPE = ("batch", "features", "labels", "fan_in")
"""columns of kernels.csv that say which times are of the same problem"""
KERNEL_COLUMNS = ("layer", "direction", "milliseconds", *SHAPE)
"""what the claims read of kernels.csv: layer is a pattern of `config.PATTERNS`, direction is forward
or backward, milliseconds is the median; there may be more columns"""


def read_benchmark(path: Path) -> list[dict[str, Cell]]:
    """Rows of a benchmark file, numbers as numbers; raises DataError when it is missing or empty."""
    with (
        reading(path, "a table of benchmark results"),
        path.open(encoding="utf-8", newline="") as f,
    ):
        rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(f)]
        if not rows:
            raise DataError(
                f"{path}: no results in it. Run the benchmark again or delete the file."
            )
        return rows


def read_kernels(path: Path) -> list[dict[str, Cell]]:
    """Rows of a kernels.csv; raises DataError when a column that the claims need is not there."""
    rows = read_benchmark(path)
    missing = [name for name in KERNEL_COLUMNS if name not in rows[0]]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(missing)}. Run the benchmark again: haste bench kernels"
        )
    return rows


def time_ratios(
    rows: Sequence[Mapping[str, Cell]], numerator: str, denominator: str, direction: str
) -> list[float]:
    """Time of one layer over the time of another, for each problem (SHAPE) that has both.

    Where a layer was timed with several group sizes, each time counts.
    """
    times: dict[str, dict[tuple, list[float]]] = {numerator: {}, denominator: {}}
    for row in rows:
        if row["direction"] == direction and row["layer"] in times:
            shape = tuple(row[name] for name in SHAPE)
            times[row["layer"]].setdefault(shape, []).append(float(row["milliseconds"]))
    return [
        a / b
        for shape, found in times[numerator].items()
        for a in found
        for b in times[denominator].get(shape, [])
    ]


def _number(text: str | None) -> Cell:
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
