"""Made-up results of the scale benchmark."""

from __future__ import annotations

import csv
from pathlib import Path

from haste.bench.scale import COLUMNS
from haste.files import write_json

LABELS = {
    "Amazon-670K": 670_091,
    "Amazon-3M": 2_812_281,
    "LF-Paper2Keywords-8.6M": 8_623_847,
}
PRESETS = ("default", "speed")
SWEEP = (131_073, 8_623_847, 100_000_000)
EPOCH_MINUTES = {"haste": 5.0, "spartex": 25.0, "elmo-bf16": 12.0}
PEAK = {"haste": 2.0, "spartex": 6.0, "elmo-bf16": 8.0}
"""GiB, of a million labels"""


def write_scale(results: Path, device: str = "h200") -> Path:
    """RESULTS/benchmarks/DEVICE/scale.csv and scale.json; one row of the sweep did not fit."""
    folder = results / "benchmarks" / device
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for method, minutes in EPOCH_MINUTES.items():
        shapes = [(name, labels, preset) for name, labels in LABELS.items() for preset in PRESETS]
        shapes += [("sweep", labels, "default") for labels in SWEEP]
        for dataset, labels, preset in shapes:
            record = {"dataset": dataset, "method": method, "preset": preset, "labels": labels}
            fits = method == "haste" or labels < 50_000_000
            numbers = {
                "seconds_per_step": 0.02,
                "epoch_minutes": minutes * (1 if preset == "default" else 2),
                "peak_allocated_gib": PEAK[method] * labels / 1e6,
                "steps_allocated_gib": PEAK[method] * labels / 1e6,
                "layer_share": 0.125,
            }
            records.append(record | (numbers if fits else {"note": "out of memory (140 GiB)"}))
    with (folder / "scale.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    described = {"gpu": "NVIDIA H200", "torch": "2.11", "memory_gib": 140.0, "commit": "a" * 40}
    write_json(folder / "scale.json", described)
    return folder / "scale.csv"
