"""Subcommands that carry finished runs from one machine to another."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from haste.cli.app import GridOption, app
from haste.progress import working

log = logging.getLogger(__name__)


@app.command("export-results")
def export_results(
    grid: GridOption,
    out: Annotated[Path, typer.Option(help="The zip to write.")],
    top: Annotated[
        int,
        typer.Option(
            min=5,
            help="Predictions kept per document. With fewer than 100 the archive is smaller, and what is said of "
            "R@100 has intervals over seeds alone.",
        ),
    ] = 100,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Runs as dataset/method/variant/seedK, * for any, or one of the four names, such as trial-*; "
            "by default all, including trials. Repeatable."
        ),
    ] = None,
) -> None:
    """Pack the finished runs of a grid for `haste import-results`.

    Without weights, and without predictions of trials, which nothing reads.
    """
    from haste.grid import read_grid
    from haste.transfer import export_results as export

    with working(f"Writing {out}"):
        number = export(read_grid(grid), out, top, only or ())
    log.info("wrote %s: %d runs, %.1f MiB", out, number, out.stat().st_size / 2**20)


@app.command("import-results")
def import_results(
    archive: Annotated[Path, typer.Argument(help="A zip that haste export-results wrote.")],
    grid: GridOption,
    without_data: Annotated[
        bool,
        typer.Option(
            "--without-data",
            help="Also import runs whose data is not on this machine, without comparing it.",
        ),
    ] = False,
) -> None:
    """Import runs of another machine into results/<grid>/runs, where Snakemake finds them finished.

    Their data must be on this machine: it is compared with what they were trained from. Runs that are
    finished on this machine are kept.
    """
    from haste.grid import read_grid
    from haste.transfer import import_results as take

    with working(f"Reading {archive}"):
        runs = take(archive, read_grid(grid), without_data=without_data)
    log.info("%d runs imported, %d were finished before", len(runs.taken), len(runs.kept))
