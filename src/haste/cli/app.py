"""The `haste` command without its subcommands, and the options that several of them have."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from haste._version import __version__

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Sparse output layers for extreme multi-label classification: every stage of the replication.",
)
CorpusOption = Annotated[Path, typer.Option("--corpus", help="Corpus folder.")]
RegistryOption = Annotated[
    Path, typer.Option("--registry", help="The registry of sources, models and data sets.")
]
GridOption = Annotated[
    list[Path],
    typer.Option(
        "--grid",
        "--configfile",
        help="A grid's configuration, such as config.yaml. Repeatable: later files override earlier ones.",
    ),
]


ANYWHERE = ("-v", "--verbose", "-q", "--quiet")
"""options that are understood behind a subcommand too"""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"haste {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def configure(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log details. Here or behind a subcommand.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Log warnings and errors alone.")
    ] = False,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up logging on stderr: rich on a terminal, plain lines in a file."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
        logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
    else:
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")


def anywhere_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with those of ANYWHERE before the subcommand; what is behind -- is another command's."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    first = [word for word in arguments[:end] if word in ANYWHERE]
    rest = [word for word in arguments[:end] if word not in ANYWHERE]
    return [*first, *rest, *arguments[end:]]
