"""The table of a grid's trials: what each came to on the validation split, and which was chosen."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from haste.grid import TRIAL_PREFIX, GridConfig, RunKey
from haste.metrics.names import VALIDATED
from haste.presets import method
from haste.report.registry import Inputs, table
from haste.report.render import OPEN, Column, Table, mean_std
from haste.report.runs import Run, run_note, untuned_note
from haste.tuning import Tuning

if TYPE_CHECKING:
    from haste.report.load import Sources

CHOSEN = "chosen"
COLUMNS = (
    Column("dataset", "Data set"),
    Column("method", "Method"),
    Column("trial", "Trial"),
    Column("settings", "Settings"),
    Column("epochs", "Epochs", digits=0),
    *(Column(name, name) for name in VALIDATED),
    Column("mean", "Mean", digits=2),
    Column("loss", "Training loss", digits=2),
    Column(CHOSEN, "Chosen"),
)
OPEN_NOTE = (
    "Open: there is no finished run of the trial with these settings. A run that ended because its loss was "
    "no longer finite leaves none either, so such a trial is open too. Nothing is chosen for a method "
    "until all its trials are finished."
)
NOTHING_NOTE = "No trial is finished."


@table(
    "tuning",
    "Trials on the validation split",
    inputs=lambda grid: Inputs(runs=tuple(grid.trial_runs()), partial=True),
    applies=lambda grid: grid.tuning is not None,
    on_request=True,
    long=True,
)
def tuning_table(sources: Sources) -> Table:
    """Trials of the methods: every method has as many, of as many epochs, and the same seeds.

    The trial with the largest mean of P@1, P@5 and PSP@5 is chosen for its method, and ``overrides`` of the
    grid carry its settings into the runs of the other tables.
    """
    tuning = sources.grid.tuning
    # the table applies to no other grid
    assert tuning is not None
    run_of = {run.key: run for run in sources.runs}
    trials: dict[tuple[str, str], dict[str, list[RunKey]]] = {}
    for key in sources.grid.trial_runs():
        trials.setdefault((key.dataset, key.method), {}).setdefault(key.variant, []).append(key)
    rows = []
    for of_method in trials.values():
        finished = {
            name: [run_of[key] for key in keys]
            for name, keys in of_method.items()
            if all(key in run_of for key in keys)
        }
        best = choose(finished) if len(finished) == len(of_method) else None
        for name, keys in of_method.items():
            mark = OPEN if name not in finished else CHOSEN if name == best else ""
            rows.append(
                _row(sources.grid, tuning, keys[0], finished.get(name, [])) | {CHOSEN: mark}
            )
    one = len(tuning.seeds) == 1
    seeds = f"{'seed' if one else 'seeds'} {', '.join(map(str, tuning.seeds))}"
    notes = [
        *untuned_note(sources.grid),
        f"Budget, the same for every method: {max(map(len, trials.values()), default=0)} trials of "
        f"{tuning.epochs} epochs, {seeds}{'' if one else '; mean ± sample standard deviation over them'}.",
        *([f"Which trials a method has: {tuning.rule}"] if tuning.rule else []),
        "Metrics in percent on the validation split, after the last epoch; no trial reads the test "
        "split or counts labels over it. Settings: what the trial sets for the method, other than the "
        "grid and the method's preset.",
        f"Chosen: for each method the largest mean of {', '.join(VALIDATED[:-1])} and {VALIDATED[-1]}, "
        "of equal ones the first.",
    ]
    if any(row[CHOSEN] == OPEN for row in rows):
        notes.append(OPEN_NOTE)
    notes.append(run_note(sources.runs) if sources.runs else NOTHING_NOTE)
    return Table.of(COLUMNS, rows, notes, section="dataset")


def choose(trials: Mapping[str, Sequence[Run]]) -> str:
    """Of one method's trials (the runs of each, one a seed) the one with the largest mean of VALIDATED;
    of equal ones the first."""
    return max(trials, key=lambda name: statistics.fmean(map(criterion, trials[name])))


def criterion(run: Run) -> float:
    """Mean of the metrics that choose, in percent."""
    return statistics.fmean(run.metrics[name] for name in VALIDATED)


def _row(grid: GridConfig, tuning: Tuning, key: RunKey, runs: Sequence[Run]) -> dict[str, Any]:
    """A trial's settings and, where its runs are finished, their numbers."""
    row: dict[str, Any] = {
        "dataset": key.dataset,
        "method": method(key.method).title,
        "trial": key.variant.removeprefix(TRIAL_PREFIX),
        "settings": _settings(grid, tuning, key),
    }
    if not runs:
        return row
    values: dict[str, list[float | None]] = {
        **{name: [run.metrics[name] for run in runs] for name in VALIDATED},
        "mean": [criterion(run) for run in runs],
        "loss": [run.loss for run in runs],
    }
    for name, numbers in values.items():
        # of one run plain numbers, so that no column for a spread stands empty
        row |= {name: numbers[0]} if len(runs) == 1 else mean_std(name, numbers)
    return row | {"epochs": runs[0].epochs}


def _settings(grid: GridConfig, tuning: Tuning, key: RunKey) -> str:
    """The values that a trial sets for its method, scaled: `training.learning_rate 0.2, ...`."""
    config = grid.resolve(key)
    changed = tuning.changed(key.method, key.variant)
    values = {f"{part}.{name}": getattr(getattr(config, part), name) for part, name in changed}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
