"""Subcommands: tables and figures from finished runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from haste.cli.app import GridOption, app
from haste.paths import PUBLISHED

if TYPE_CHECKING:
    from haste.report.load import Sources
    from haste.report.registry import Entry

log = logging.getLogger(__name__)

Name = Annotated[str, typer.Argument(help="Its name; an unknown one lists those of the grid.")]
Out = Annotated[Path, typer.Option("--out", help="Where to write, without a suffix.")]
PublishedFile = Annotated[
    Path, typer.Option("--published", help="Table of the papers' results (csv).")
]


@app.command("table")
def table(
    name: Name,
    grid: GridOption,
    out: Out,
    published: PublishedFile = PUBLISHED,
) -> None:
    """Make a table: OUT.csv (full precision), OUT.md and OUT.tex."""
    from haste.report.load import build
    from haste.report.render import write_table

    entry, sources = _load("table", name, grid, published)
    _log_written(write_table(out, entry.title, build(entry, sources)))


@app.command("figure")
def figure(
    name: Name,
    grid: GridOption,
    out: Out,
    published: PublishedFile = PUBLISHED,
) -> None:
    """Draw a figure: OUT.csv (exactly what was drawn), OUT.pdf and OUT.png."""
    from haste.report.load import build
    from haste.report.style import write_figure

    entry, sources = _load("figure", name, grid, published)
    _log_written(write_figure(out, lambda: build(entry, sources)))


@app.command("verdicts")
def verdicts(
    claims: Annotated[list[Path], typer.Argument(help="Tables of claims (claims.csv) of grids.")],
    out: Out,
) -> None:
    """Say for each claim on which data sets it holds: OUT.csv, OUT.md and OUT.tex.

    Of the tables of claims of several grids, results/*/tables/claims.csv for example.
    """
    from haste.report.render import write_table
    from haste.report.verdicts import TITLE, verdicts_table

    _log_written(write_table(out, TITLE, verdicts_table(claims)))


@app.command("index")
def index(
    grid: GridOption,
    command: Annotated[
        str,
        typer.Option(help="What makes a table or figure again, TARGET in the place of its name."),
    ] = "snakemake TARGET",
) -> None:
    """Make the page of a grid, index.html, of the tables and figures that it has."""
    from haste.grid import read_grid
    from haste.report.index import write_index

    _log_written([write_index(read_grid(grid), command)])


def _load(kind: str, name: str, paths: list[Path], published: Path) -> tuple[Entry, Sources]:
    from haste.grid import read_grid
    from haste.report.load import Sources
    from haste.report.published import load_published
    from haste.report.registry import entry

    grid = read_grid(paths)
    registered = entry(kind, name, grid)
    inputs = registered.inputs_of(grid)
    return registered, Sources.load(grid, inputs, load_published(published))


def _log_written(paths: list[Path]) -> None:
    log.info("wrote %s", ", ".join(map(str, paths)))
