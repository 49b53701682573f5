"""Subcommands that make the data: fetch, corpus, tokenize."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from haste.paths import REGISTRY as DEFAULT_REGISTRY

log = logging.getLogger(__name__)

RegistryOption = Annotated[
    Path, typer.Option("--registry", help="The registry of sources, models and data sets.")
]


def register(app: typer.Typer) -> None:
    """Add this module's subcommands to the command."""
    app.command()(fetch)
    app.command()(corpus)
    app.command()(tokenize)


def fetch(
    source: Annotated[str, typer.Argument(help="A source or model of the registry.")],
    out: Annotated[Path, typer.Option(help="Folder for its files.")],
    registry: RegistryOption = DEFAULT_REGISTRY,
) -> None:
    """Fetch a source or a pretrained model, checked; nothing happens when it is there already."""
    from haste.data.fetch import fetch as fetch_source
    from haste.data.registry import load_registry

    chosen = load_registry(registry).source(source)
    with Console(stderr=True).status(f"Fetching {source}"):
        fetch_source(chosen, out)


def corpus(
    dataset: Annotated[str, typer.Argument(help="A data set of the registry.")],
    raw: Annotated[Path, typer.Option(help="Folder of its fetched source.")],
    out: Annotated[Path, typer.Option(help="Corpus folder to write.")],
    registry: RegistryOption = DEFAULT_REGISTRY,
) -> None:
    """Make documents, labels and their matrices from a fetched source."""
    from haste.data.build import build_corpus
    from haste.data.registry import load_registry

    chosen = load_registry(registry).dataset(dataset)
    with counting("Reading") as tick:
        info = build_corpus(chosen, raw, out, tick)
    log.info(
        "%s: %s documents; %d labels and %d without a training document; %.2f labels a document",
        info.dataset,
        ", ".join(f"{number} {split}" for split, number in info.documents.items()),
        info.n_labels,
        info.n_extra,
        info.statistics.labels_per_document,
    )


def tokenize(
    corpus: Annotated[Path, typer.Option(help="Corpus folder.")],
    model: Annotated[Path, typer.Option(help="Model folder with tokenizer.json.")],
    out: Annotated[Path, typer.Option(help="Token folder to write.")],
    max_len: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens kept of a document, special ones included; if not given, the data set's.",
        ),
    ] = None,
) -> None:
    """Cut documents into the token ids of a model's tokenizer."""
    from haste.data.corpus import load_corpus
    from haste.data.tokenize import tokenize as tokenize_corpus

    opened = load_corpus(corpus)
    with counting("Tokenising", sum(opened.info.documents.values())) as tick:
        info = tokenize_corpus(opened, model, max_len or opened.info.max_len, out, tick)
    log.info(
        "%s: %.1f tokens a training document (at most %d)",
        opened.info.dataset,
        info.n_tokens["train"] / opened.info.documents["train"],
        info.max_len,
    )


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr when that is a terminal; yields what sets its count."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
