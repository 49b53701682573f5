"""Subcommands: tables and figures from finished runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from haste.cli.plan import GridOption

if TYPE_CHECKING:
    from haste.grid import GridConfig
    from haste.reporting.needs import Inputs
    from haste.reporting.sources import Sources

log = logging.getLogger(__name__)

Name = Annotated[str, typer.Argument(help="Which one; an unknown name lists the grid's.")]
RunDirs = Annotated[
    list[Path] | None,
    typer.Argument(help="Folders of finished runs; without any, those that the grid names."),
]
PUBLISHED = Path("workflow/resources/published.csv")
Out = Annotated[Path, typer.Option("--out", help="Where to write, without a suffix.")]
PublishedFile = Annotated[
    Path, typer.Option("--published", help="Table of the papers' numbers (csv).")
]


def register(app: typer.Typer) -> None:
    """Add this module's subcommands to the command."""
    app.command("table")(table)
    app.command("figure")(figure)


def table(
    name: Name,
    grid: GridOption,
    out: Out,
    run_dirs: RunDirs = None,
    published: PublishedFile = PUBLISHED,
) -> None:
    """Make a table: OUT.csv (raw numbers), OUT.md, OUT.tex and OUT.html."""
    from haste.reporting.needs import table_inputs
    from haste.reporting.table import write_table
    from haste.reporting.tables import build_table

    sources = _sources(grid, table_inputs, name, published, run_dirs)
    _say(write_table(out, build_table(name, sources)))


def figure(
    name: Name,
    grid: GridOption,
    out: Out,
    run_dirs: RunDirs = None,
    published: PublishedFile = PUBLISHED,
) -> None:
    """Draw a figure: OUT.csv (exactly what was drawn), OUT.pdf and OUT.png."""
    from haste.reporting.figures import write_figure
    from haste.reporting.needs import figure_inputs

    sources = _sources(grid, figure_inputs, name, published, run_dirs)
    _say(write_figure(out, name, sources))


def _sources(
    paths: list[Path],
    inputs_of: Callable[[GridConfig, str], Inputs],
    name: str,
    published: Path,
    run_dirs: list[Path] | None,
) -> Sources:
    from haste.grid import read_grid
    from haste.reporting.published import load_published
    from haste.reporting.sources import Sources

    grid = read_grid(paths)
    return Sources.load(grid, inputs_of(grid, name), load_published(published), run_dirs or None)


def _say(paths: list[Path]) -> None:
    log.info("wrote %s", ", ".join(str(path) for path in paths))
