"""The `haste` command without its subcommands, and the options that several of them have."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
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


@app.callback()
def configure(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details.")] = False,
) -> None:
    """Set up logging on stderr: rich on a terminal, plain lines in a file."""
    level = logging.DEBUG if verbose else logging.INFO
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
        logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
    else:
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
