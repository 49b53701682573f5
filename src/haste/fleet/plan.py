"""The work list of a grid as a file: what is trained in which order, from what, and what is done."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

from haste.files import atomic
from haste.fleet.worklist import worklist
from haste.grid import GridConfig
from haste.runs import fingerprint, is_done, run_dir
from haste.transfer.digests import InputDigests

COLUMNS = (
    "order",
    "why",
    "dataset",
    "method",
    "variant",
    "seed",
    "config",
    "inputs",
    "state",
)
"""`config`: sha256 of the settings that decide a run's numbers; `inputs`: sha256 over the files it reads,
empty where they are not all made; `state`: done or open"""


def write_plan(grid: GridConfig, out: Path) -> None:
    """Write one line a trained run (CSV, see COLUMNS); reads all inputs that are there."""
    digests = InputDigests()
    with atomic(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for number, task in enumerate(worklist(grid), start=1):
            config = grid.resolve(task.key)
            row = {
                "order": number,
                "why": task.why,
                **asdict(task.key),
                "config": fingerprint(config),
                "inputs": digests.of(config.inputs),
                "state": "done" if is_done(run_dir(grid, task.key), config) else "open",
            }
            writer.writerow(row)
