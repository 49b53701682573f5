"""Where a run's log lies, and making room for a run that starts."""

from __future__ import annotations

from pathlib import Path

from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.runs import remove_results


def log_path(grid: GridConfig, key: RunKey, logs: Path) -> Path:
    """The log of a run, where the workflow has it too."""
    return logs / grid.name / key.dataset / key.method / key.variant / f"seed{key.seed}.log"


def clear(run: RunDir, log: Path) -> None:
    """Remove the results in a run's folder, not its checkpoint, and Snakemake's benchmark beside the log:
    Snakemake takes a run to be as old as the oldest of its files, this one included."""
    remove_results(run)
    log.with_suffix(".tsv").unlink(missing_ok=True)
