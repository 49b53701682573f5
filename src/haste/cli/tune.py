"""Subcommand tune: settings for a data set of one's own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from haste.cli.app import app
from haste.progress import counting

if TYPE_CHECKING:
    from rich.table import Table

    from haste.search import Trial

log = logging.getLogger(__name__)

CHOSEN = "tuned.yaml"


@app.command()
def tune(
    data: Annotated[Path, typer.Argument(help="Folder of the data set, in any layout.")],
    out: Annotated[Path, typer.Option(help="Folder for tuned.yaml, corpus and trials.")],
    minutes: Annotated[
        float, typer.Option(min=0.0, help="No trial begins that would end later; one always does.")
    ] = 10.0,
    trials: Annotated[int, typer.Option(min=1, help="At most so many trials.")] = 100,
    method: Annotated[str, typer.Option(help="A method of the preset table.")] = "haste-plus",
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of a pretrained model that reads texts; else their own words."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of training and of the search.")] = 0,
) -> None:
    """Search settings for a data set on its validation split; the test split is not read.

    The first trial has the defaults. Each later one changes one or two settings of
    the best so far: step sizes, steps, dropout, head, fan-in. OUT/tuned.yaml has the
    best, a grid's configuration for snakemake --configfile, and OUT/run/config.yaml
    the run's, for haste train.

    The same command resumes: finished trials are kept, one that
    was stopped resumes, and the minutes count anew.
    """
    from rich.console import Console

    from haste.files import write_yaml
    from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
    from haste.own_data import DATASET, grid_of_folder
    from haste.search import Search

    with counting("Reading") as tick:
        settings = grid_of_folder(data, out, method, seed=seed, model=model, tick=tick)
    search = Search(settings)
    run = out / "run" / "config.yaml"

    def keep(trial: Trial) -> None:
        chosen = search.chosen()
        write_yaml(out / CHOSEN, chosen)
        key = RunKey(DATASET, method, DEFAULT_VARIANT, seed)
        run.parent.mkdir(exist_ok=True)
        write_yaml(run, GridConfig.from_dict(chosen).resolve(key).as_dict())
        log.info("trial %s: mean %.2f; best so far %s", trial.name, trial.score, search.best.name)

    search.run(minutes, trials, keep)
    Console().print(_table(search.trials, search.best))
    log.info("wrote %s. Train and read the test split: haste train %s", out / CHOSEN, run)


def _table(trials: Sequence[Trial], best: Trial) -> Table:
    from rich.table import Table

    from haste.metrics.names import VALIDATED

    table = Table(title="Trials, in percent on the validation split", title_justify="left")
    table.add_column("Trial")
    table.add_column("Settings", overflow="fold")
    for heading in (*VALIDATED, "Mean", "Steps", "Seconds"):
        table.add_column(heading, justify="right")
    for trial in trials:
        settings = ", ".join(f"{key} {value:.3g}" for key, value in trial.changed.items())
        numbers = [trial.metrics[name] for name in VALIDATED] if trial.metrics else []
        table.add_row(
            trial.name,
            settings or "defaults",
            *([f"{number:.2f}" for number in (*numbers, trial.score)] if numbers else ["-"] * 4),
            str(trial.steps),
            f"{trial.seconds:.0f}",
            style="bold" if trial is best else None,
        )
    return table
