"""The table of all runs: one row each, so that its csv stands for runs that are not kept."""

from __future__ import annotations

import math
from typing import Any

from haste.reporting.runs import CONVERGED_NOTE, METRICS, VALIDATED, run_row
from haste.reporting.sources import Sources
from haste.reporting.table import GIB, MIB, MILLION, Cell, Column, Table

COLUMNS = (
    Column("dataset", "Data set"),
    Column("method", "Method"),
    Column("variant", "Variant"),
    Column("seed", "Seed", digits=0),
    *(Column(name, name) for name in METRICS),
    *(Column(f"P@{k} without mirrored", f"P@{k} w/o mirrored") for k in (1, 3, 5)),
    *(Column(f"validation {name}", f"{name}, validation") for name in VALIDATED),
    Column("tail_bias_offset", "Tail shifted by", digits=2, signed=True),
    Column("epochs", "Epochs", digits=0),
    Column("loss", "Training loss", digits=2),
    Column("slope", "Slope (%/epoch)", digits=2, scale=0.01, signed=True),
    Column("converged", "Converged"),
    Column("epoch_seconds", "Epoch (s)"),
    Column("train_seconds", "Training (s)"),
    Column("evaluate_seconds", "Evaluation (s)"),
    Column("runs_at_once", "Runs at once", digits=0),
    Column("peak_train_bytes", "Peak memory, training (GiB)", digits=2, scale=GIB),
    Column("peak_evaluate_bytes", "Peak memory, evaluation (GiB)", digits=2, scale=GIB),
    Column("state_bytes", "State (MiB)", scale=MIB),
    Column("layer_bytes", "Layer (MiB)", scale=MIB),
    Column("parameters", "Parameters (M)", digits=2, scale=MILLION),
    Column("backend", "Metrics by"),
    Column("device", "Device"),
)
MACHINE = "machine "
"""begins the names of columns about versions and hardware"""


def runs_table(sources: Sources) -> Table:
    """Every run of the grid: its metrics, resources, convergence, device and versions.

    Columns that no run has a value for are left out.
    """
    rows = [{key: _cell(value) for key, value in run_row(run).items()} for run in sources.runs]
    filled = dict.fromkeys(key for row in rows for key, cell in row.items() if cell is not None)
    machine = (Column(key, key.capitalize()) for key in filled if key.startswith(MACHINE))
    columns = (*(column for column in COLUMNS if column.key in filled), *machine)
    notes = (
        "One row a run. Metrics in percent on the test split; the csv has every number unrounded, "
        "memory in bytes and times in seconds.",
        "Validation: after the last epoch, before a tail is shifted; for choosing between methods, for "
        "which the test split must not be read.",
        CONVERGED_NOTE,
    )
    return Table("All runs", columns, tuple(rows), notes, section="dataset" if rows else None)


def _cell(value: Any) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if isinstance(value, float) and not math.isfinite(value) else value
