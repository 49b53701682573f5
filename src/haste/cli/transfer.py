"""Subcommands that carry finished runs from one machine to another."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from haste.cli.plan import GridOption

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add this module's subcommands to the command."""
    app.command("export-results")(export_results)
    app.command("import-results")(import_results)


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
            help="Runs as dataset/method/variant/seedK, * for any, or one of the four names, such as trial-*; "
            "without one all, trials included. Repeatable."
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
