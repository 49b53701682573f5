"""Subcommands for a grid of runs without Snakemake: train them, and bring their results home."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from haste.cli.plan import GridOption

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add this module's subcommands to the command."""
    app.command("drive")(drive)
    app.command("export-results")(export_results)
    app.command("import-results")(import_results)


def drive(
    grid: GridOption,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once on each GPU, or on the CPU.")] = 3,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.0, help="Stop then, each run with a checkpoint; call again to go on."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Runs as dataset/method/variant/seedK, * for any, or one of the four names. Repeatable. "
            "Trials are trained only for a pattern that says trial-, such as trial-*."
        ),
    ] = None,
) -> None:
    """Train the open runs of a grid on all GPUs of this machine, what decides most first.

    The data has been made (Snakemake does, or the commands it calls). Runs that are done are skipped,
    others go on from their checkpoints. Logs go to logs/<grid>/. The exit code is 1 when a run failed.
    """
    import os

    import torch

    from haste.fleet.drive import drive as work_off
    from haste.fleet.places import find_places
    from haste.fleet.worklist import select, worklist
    from haste.grid import read_grid

    chosen = read_grid(grid)
    tasks = select(worklist(chosen), only or ())
    places = find_places(torch.cuda.device_count(), os.environ)
    summary = work_off(chosen, tasks, places, jobs=jobs, seconds=seconds)
    if summary.failed:
        raise typer.Exit(1)


def export_results(
    grid: GridOption,
    out: Annotated[Path, typer.Option(help="The zip to write.")],
    top: Annotated[
        int,
        typer.Option(
            min=5, help="Predictions kept a document; tables and figures read the first 5."
        ),
    ] = 10,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Runs as for haste drive, such as trial-*; without one all, trials included. Repeatable."
        ),
    ] = None,
) -> None:
    """Pack the finished trained runs of a grid for `haste import-results`.

    Weights are left out, and of trials the predictions too, because nothing reads them.
    """
    from haste.grid import read_grid
    from haste.transfer.exporting import export_results as export

    number = export(read_grid(grid), out, top, only or ())
    log.info("wrote %s: %d runs, %.1f MiB", out, number, out.stat().st_size / 2**20)


def import_results(
    archive: Annotated[Path, typer.Argument(help="A zip that haste export-results wrote.")],
    grid: GridOption,
    without_data: Annotated[
        bool,
        typer.Option("--without-data", help="Take runs whose data is not here, so not compared."),
    ] = False,
) -> None:
    """Take runs of another machine into results/<grid>/runs, where Snakemake finds them done.

    Their data must be here first: it is compared with what they were trained from. Runs that are
    finished here are left alone.
    """
    from haste.grid import read_grid
    from haste.transfer.importing import import_results as take

    found = take(archive, read_grid(grid), without_data=without_data)
    log.info("%d runs taken, %d were here already", len(found.taken), len(found.kept))
