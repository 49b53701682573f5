"""Subcommands that make the data: fetch, corpus, tokenize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RegistryOption = Annotated[
    Path, typer.Option("--registry", help="The registry of sources, models and data sets.")
]
DEFAULT_REGISTRY = Path("workflow/resources/datasets.yaml")


def register(app: typer.Typer) -> None:
    """Add this module's subcommands to the command."""
    app.command()(fetch)


def fetch(
    source: Annotated[str, typer.Argument(help="A source or model of the registry.")],
    out: Annotated[Path, typer.Option(help="Folder for its files.")],
    registry: RegistryOption = DEFAULT_REGISTRY,
) -> None:
    """Fetch a source or a pretrained model, checked; nothing happens when it is there already."""
    from haste.data.fetch import fetch as fetch_source
    from haste.data.registry import load_registry

    fetch_source(load_registry(registry).source(source), out)
