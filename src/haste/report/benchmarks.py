"""Committed benchmark files, results/benchmarks/<device>/{kernels,scale}.csv."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haste.errors import DataError
from haste.files import read_json, reading
from haste.former_names import renamed_columns

SHAPE = ("batch", "features", "labels", "fan_in")
"""columns of kernels.csv that say which times are of the same problem"""
NEEDED = {
    # layer is a pattern of `config.PATTERNS`, direction forward, backward or step, milliseconds the
    # median, empty for a row that was wrong or did not run; the others in `haste.bench.kernels.COLUMNS`
    "kernels": ("layer", "direction", "milliseconds", *SHAPE),
    # the others in `haste.bench.scale.COLUMNS`
    "scale": ("dataset", "method", "preset", "labels", "seconds_per_step", "peak_allocated_gib"),
}
"""columns that are relied upon, by benchmark"""
MACHINES = {"kernels": "machine.json", "scale": "scale.json"}
"""by benchmark: the file beside its csv about device and versions"""
SWEEP = "sweep"
"""with which the names of shapes and data sets begin that are those of no data set"""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """The results of a benchmark on one device."""

    device: str
    """name of its folder"""
    rows: tuple[Row, ...]
    """None for an empty cell"""
    machine: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> Results:
        """From a kernels.csv or scale.csv and the file about the machine beside it; raises DataError."""
        command = f"haste bench {path.stem}"
        with (
            reading(path, "results of a benchmark", command),
            path.open(encoding="utf-8", newline="") as f,
        ):
            rows = tuple(
                renamed_columns({k: _number(v) for k, v in row.items()})
                for row in csv.DictReader(f)
            )
            missing = set(NEEDED[path.stem]) - set(rows[0] if rows else ())
            if missing:
                raise DataError(
                    f"{path}: no results with {', '.join(sorted(missing))}. Make them again: {command}."
                )
        machine = path.with_name(MACHINES[path.stem])
        return cls(path.parent.name, rows, read_json(machine) if machine.exists() else {})

    def names(self, column: str) -> list[str]:
        """The values of a column (shape, dataset), in the order of the file, without sweeps."""
        values = dict.fromkeys(str(row.get(column)) for row in self.rows)
        return [name for name in values if not name.startswith(SWEEP)]

    def find(self, **values: str) -> Row:
        """The first row with these values; empty where there is none."""
        return next((row for row in self.rows if has(row, values)), {})

    def milliseconds(self, shape: str, layer: str, direction: str) -> float | None:
        """The median time of a kernel; None where it has none."""
        return self.find(shape=shape, layer=layer, direction=direction).get("milliseconds")

    def note(self) -> str:
        """Machine and versions in a sentence."""
        known = {key: value for key, value in self.machine.items() if value}
        # of the kernel benchmark device and gpu say the same
        words = list(dict.fromkeys(known[k] for k in ("device", "gpu", "date") if k in known))
        words += [f"{k} {known[k]}" for k in ("driver", "cuda", "torch", "triton") if k in known]
        if "commit" in known:
            words.append(f"commit {str(known['commit'])[:12]}")
        if "copy_terabytes_per_second" in known:
            words.append(f"copies at {known['copy_terabytes_per_second']:.2f} TB/s")
        if "gemm_teraflops" in known:
            words.append(f"multiplies bf16 at {known['gemm_teraflops']:.0f} TFLOP/s")
        return f"{self.device}: {', '.join(words) or 'machine not recorded'}."


def has(row: Row, values: Row) -> bool:
    """Whether a row has all of some values."""
    return all(row.get(name) == value for name, value in values.items())


def time_ratios(
    rows: Sequence[Row], numerator: str, denominator: str, direction: str
) -> list[float]:
    """Time of one layer over the time of another, for each problem (SHAPE) that has both.

    Where a layer was timed with several group sizes, each time counts.
    """
    timed = [r for r in rows if r["direction"] == direction and r["milliseconds"] is not None]
    return [
        a["milliseconds"] / b["milliseconds"]
        for a in timed
        for b in timed
        if a["layer"] == numerator
        and b["layer"] == denominator
        and has(a, {name: b[name] for name in SHAPE})
    ]


def _number(text: str | None) -> str | int | float | None:
    if not text:
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
