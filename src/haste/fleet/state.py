"""Whether a run is finished, and making room for one that starts."""

from __future__ import annotations

from pathlib import Path

from haste.config import RunConfig
from haste.errors import DataError
from haste.files import read_json, read_yaml
from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.presets import method


def run_dir(grid: GridConfig, key: RunKey) -> RunDir:
    """The folder of a run of the grid."""
    return grid.layout.run(key.dataset, key.method, key.variant, key.seed)


def is_done(run: RunDir, config: RunConfig) -> bool:
    """Whether a run has finished with just this configuration."""
    try:
        return _is_whole(run) and config.is_of(read_yaml(run.config))
    except DataError:
        return False


def is_finished(grid: GridConfig, key: RunKey) -> bool:
    """Whether a run of the grid has finished: one of a linear method, which has no settings, with any
    configuration, others as `is_done`."""
    run = run_dir(grid, key)
    return (
        _is_whole(run) if method(key.method).kind == "linear" else is_done(run, grid.resolve(key))
    )


def _is_whole(run: RunDir) -> bool:
    if not run.metrics.is_file():
        return False
    try:
        return read_json(run.resources)["completed"] is True
    except (DataError, KeyError, TypeError):
        return False


def log_path(grid: GridConfig, key: RunKey, logs: Path) -> Path:
    """The log of a run, where the workflow has it too."""
    return logs / grid.name / key.dataset / key.method / key.variant / f"seed{key.seed}.log"


def clear(run: RunDir, log: Path) -> None:
    """Remove the results in a run's folder, not its checkpoint.

    Results of an earlier configuration would pass for those of the next as soon as its config.yaml is
    written; metrics.json, by which a run counts as finished, goes first. So does Snakemake's benchmark
    beside the log: Snakemake takes a run to be as old as the oldest of its files, this one included.
    """
    paths = (run.metrics, run.resources, run.predictions, run.history, run.model)
    for path in (*paths, log.with_suffix(".tsv")):
        path.unlink(missing_ok=True)
