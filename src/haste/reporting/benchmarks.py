"""Committed benchmark files, results/benchmarks/<device>/{kernels,scale}.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haste.errors import DataError
from haste.files import read_json, reading
from haste.reporting.needs import MACHINE
from haste.reporting.table import Cell

SHAPE = ("batch", "features", "labels", "fan_in")
"""columns of kernels.csv that say which times are of the same problem"""
KERNEL_COLUMNS = ("layer", "direction", "milliseconds", *SHAPE)
"""what the claims read of kernels.csv: layer is a pattern of `config.PATTERNS`, direction is forward
or backward, milliseconds is the median, empty for a row that was wrong or did not run; there are more
columns, see `benchmarks.kernels.COLUMNS`"""
SWEEP_PREFIX = "sweep"
"""with which the names of shapes begin that are no data set's"""


@dataclass(frozen=True)
class KernelTimes:
    """The kernel benchmark of one device."""

    device: str
    """name of its folder"""
    rows: tuple[Mapping[str, Cell], ...]
    machine: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> KernelTimes:
        """From a kernels.csv and what lies beside it; raises DataError."""
        machine = path.with_name(MACHINE)
        return cls(
            path.parent.name,
            tuple(read_kernels(path)),
            read_json(machine) if machine.exists() else {},
        )

    def shapes(self) -> list[str]:
        """Names of the data sets' shapes, in the order of the file."""
        names = dict.fromkeys(str(row.get("shape")) for row in self.rows)
        return [name for name in names if not name.startswith(SWEEP_PREFIX)]

    def sweep(self) -> Iterator[Mapping[str, Cell]]:
        """Rows of the sweeps."""
        return (row for row in self.rows if str(row.get("shape")).startswith(SWEEP_PREFIX))

    def find(self, shape: str, layer: str, direction: str) -> Mapping[str, Cell]:
        """The row of a time that was taken; empty where there is none."""
        wanted = (shape, layer, direction)
        for row in self.rows:
            own = tuple(row.get(name) for name in ("shape", "layer", "direction"))
            if own == wanted and row["milliseconds"] is not None:
                return row
        return {}

    def milliseconds(self, shape: str, layer: str, direction: str) -> float | None:
        """The median time of a row."""
        found = self.find(shape, layer, direction).get("milliseconds")
        return None if found is None else float(found)

    def note(self) -> str:
        """Machine and versions in a sentence."""
        found = self.machine
        words = [str(found[key]) for key in ("device", "date") if found.get(key)]
        words += [
            f"{key} {found[key]}" for key in ("driver", "cuda", "torch", "triton") if found.get(key)
        ]
        if found.get("commit"):
            words.append(f"commit {str(found['commit'])[:12]}")
        if found.get("copy_terabytes_per_second"):
            words.append(f"copies at {found['copy_terabytes_per_second']:.2f} TB/s")
        if found.get("gemm_teraflops"):
            words.append(f"multiplies bf16 at {found['gemm_teraflops']:.0f} TFLOP/s")
        return f"{self.device}: {', '.join(words) or 'machine not recorded'}."


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
        timed = row["milliseconds"] is not None
        if timed and row["direction"] == direction and row["layer"] in times:
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
