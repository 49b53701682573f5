"""Made-up results of the kernel benchmark: a whole plan of rows with times of one's choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from haste.bench.kernels import COLUMNS, GROUPED, KernelRow, plan
from haste.files import write_json, write_rows


def write_kernels(
    results: Path,
    milliseconds: Callable[[KernelRow], float | None] = lambda _: 1.0,
    device: str = "h200",
    released: bool = False,
    **values: float,
) -> Path:
    """RESULTS/benchmarks/DEVICE/kernels.csv and machine.json; `values`: of further columns, for rows
    that have a time."""
    folder = results / "benchmarks" / device
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for row in plan(released=released):
        shape, time = row.shape, milliseconds(row)
        records.append(
            {
                **dict.fromkeys(COLUMNS),
                "shape": shape.name,
                "layer": row.layer,
                "direction": row.direction,
                "milliseconds": time,
                "batch": shape.batch,
                "features": shape.features,
                "labels": shape.labels,
                "fan_in": shape.fan_in,
                "group_size": shape.group_size if row.layer in GROUPED else None,
                **(values if time is not None else {}),
            }
        )
    write_rows(folder / "kernels.csv", COLUMNS, records)
    write_json(
        folder / "machine.json",
        {"device": "NVIDIA H200", "date": "2026-11-22", "copy_terabytes_per_second": 4.27},
    )
    return folder / "kernels.csv"
