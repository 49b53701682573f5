"""The table of a grid's trials: what each came to on the validation split, and which was chosen."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from haste.config import TRIAL_PREFIX, RunKey, method
from haste.errors import DataError
from haste.reporting.runs import Run, run_note
from haste.reporting.sources import Sources
from haste.reporting.table import Cell, Column, Table

CRITERION = ("P@1", "P@5", "PSP@5")
"""metrics whose mean chooses"""
CHOSEN = "chosen"
COLUMNS = (
    Column("dataset", "Data set"),
    Column("method", "Method"),
    Column("trial", "Trial"),
    Column("settings", "Settings"),
    Column("epochs", "Epochs", digits=0),
    *(Column(name, name) for name in CRITERION),
    Column("mean", "Mean", digits=2),
    Column("loss", "Training loss", digits=2),
    Column(CHOSEN, "Chosen"),
)


def tuning_table(sources: Sources) -> Table:
    """Every trial of every method, with a mark at the one that was chosen.

    Raises DataError when a trial of the grid was not given: a method would be chosen for among fewer.
    """
    tuning = sources.grid.tuning
    found: dict[tuple[str, str], list[Run]] = {}
    given = {run.key: run for run in sources.runs}
    for key in sources.grid.trial_runs():
        if key not in given:
            raise DataError(
                f"tuning: the run {key.method}, {key.variant}, seed {key.seed} on {key.dataset} is not "
                "among the folders given; add it, or give none for all of the grid."
            )
        found.setdefault((key.dataset, key.method), []).append(given[key])
    rows = []
    for runs in found.values():
        best = choose(runs)
        rows += [_row(sources, run) | {CHOSEN: CHOSEN if run is best else ""} for run in runs]
    notes = (
        f"Budget, the same for every method: {len(tuning.trials)} trials of {tuning.epochs} epochs, "
        f"seed {tuning.seed}.",
        "Metrics in percent on the validation split, after the last epoch; no trial reads the test "
        "split or counts labels over it. Settings: what the trial sets for the method, other than the "
        "grid and the method's preset.",
        f"Chosen: for each method the largest mean of {', '.join(CRITERION[:-1])} and {CRITERION[-1]}, "
        "of equal ones the first.",
        run_note(sources.runs),
    )
    return Table("Trials on the validation split", COLUMNS, tuple(rows), notes, section="dataset")


def choose(runs: Sequence[Run]) -> Run:
    """The trial of one method with the largest mean of CRITERION; of equal ones the first."""
    return max(runs, key=criterion)


def criterion(run: Run) -> float:
    """Mean of the metrics that choose, in percent."""
    return statistics.fmean(run.metrics[name] for name in CRITERION)


def _row(sources: Sources, run: Run) -> dict[str, Cell]:
    return {
        "dataset": run.key.dataset,
        "method": method(run.key.method).title,
        "trial": run.key.variant.removeprefix(TRIAL_PREFIX),
        "settings": _settings(sources, run.key),
        "epochs": run.epochs,
        **{name: run.metrics[name] for name in CRITERION},
        "mean": criterion(run),
        "loss": run.loss,
    }


def _settings(sources: Sources, key: RunKey) -> str:
    """The values that a trial sets for its method, scaled: `training.learning_rate 0.2, ...`."""
    config = sources.grid.resolve(key)
    changed = sources.grid.tuning.changed(key.method, key.variant)
    values = [
        (f"{section}.{name}", getattr(getattr(config, section), name)) for section, name in changed
    ]
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values
    )
