"""The table of a grid's trials: what each came to on the validation split, and which was chosen."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from haste.config import TRIAL_PREFIX, RunKey, method
from haste.reporting.runs import Run, run_note
from haste.reporting.sources import Sources
from haste.reporting.table import Cell, Column, Table

CRITERION = ("P@1", "P@5", "PSP@5")
"""metrics whose mean chooses"""
CHOSEN = "chosen"
OPEN = "open"
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
OPEN_NOTE = (
    "Open: there is no finished run of the trial with these settings. A run that ended because its loss was "
    "no longer finite leaves none either, so such a trial is open too. Nothing is chosen for a method "
    "until all its trials are finished."
)
NOTHING_NOTE = (
    "No trial is finished. To train them: snakemake --configfile GRID tuning, or haste drive --grid GRID "
    "--only 'trial-*'."
)


def tuning_table(sources: Sources) -> Table:
    """Every trial of every method, with a mark at the one that was chosen, and at those that are open.

    Nothing is chosen for a method with an open trial: it would be chosen among fewer.
    """
    tuning = sources.grid.tuning
    given = {run.key: run for run in sources.runs}
    found: dict[tuple[str, str], dict[RunKey, Run | None]] = {}
    for key in sources.grid.trial_runs():
        found.setdefault((key.dataset, key.method), {})[key] = given.get(key)
    rows = []
    for trials in found.values():
        runs = [run for run in trials.values() if run is not None]
        best = choose(runs) if len(runs) == len(trials) else None
        for key, run in trials.items():
            mark = OPEN if run is None else CHOSEN if run is best else ""
            rows.append(_row(sources, key, run) | {CHOSEN: mark})
    notes = [
        f"Budget, the same for every method: {len(tuning.trials)} trials of {tuning.epochs} epochs, "
        f"seed {tuning.seed}.",
        "Metrics in percent on the validation split, after the last epoch; no trial reads the test "
        "split or counts labels over it. Settings: what the trial sets for the method, other than the "
        "grid and the method's preset.",
        f"Chosen: for each method the largest mean of {', '.join(CRITERION[:-1])} and {CRITERION[-1]}, "
        "of equal ones the first.",
    ]
    if any(row[CHOSEN] == OPEN for row in rows):
        notes.append(OPEN_NOTE)
    notes.append(run_note(sources.runs) if sources.runs else NOTHING_NOTE)
    return Table(
        "Trials on the validation split", COLUMNS, tuple(rows), tuple(notes), section="dataset"
    )


def choose(runs: Sequence[Run]) -> Run:
    """The trial of one method with the largest mean of CRITERION; of equal ones the first."""
    return max(runs, key=criterion)


def criterion(run: Run) -> float:
    """Mean of the metrics that choose, in percent."""
    return statistics.fmean(run.metrics[name] for name in CRITERION)


def _row(sources: Sources, key: RunKey, run: Run | None) -> dict[str, Cell]:
    """A trial's settings and, where it is finished, its numbers."""
    row = {
        "dataset": key.dataset,
        "method": method(key.method).title,
        "trial": key.variant.removeprefix(TRIAL_PREFIX),
        "settings": _settings(sources, key),
    }
    if run is None:
        return row
    return row | {
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
