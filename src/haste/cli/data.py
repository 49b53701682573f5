"""Subcommands that make the data: fetch, corpus, tokenize."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from haste.cli.app import CorpusOption, RegistryOption, app
from haste.paths import REGISTRY, GridLayout
from haste.progress import counting, downloading

log = logging.getLogger(__name__)

LAYOUT = GridLayout(Path("data"), Path("results"), "")
"""where the workflow keeps data unless a grid says otherwise"""


@app.command()
def fetch(
    source: Annotated[str, typer.Argument(help="A source or model of the registry.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for its files; if not given, the one that the workflow reads."),
    ] = None,
    local_copy: Annotated[
        Path | None,
        typer.Option("--from", help="Your own copy: the archive, or a folder with its files."),
    ] = None,
    lock: Annotated[
        Path, typer.Option(help="File of the digests of what was fetched before.")
    ] = LAYOUT.lock,
    registry: RegistryOption = REGISTRY,
) -> None:
    """Fetch a source or a pretrained model, checked; nothing happens when it is there already."""
    from haste.data.download import download
    from haste.data.fetch import fetch as fetch_source
    from haste.data.fetch import take
    from haste.data.registry import load_registry

    known = load_registry(registry)
    chosen = known.source(source)
    out = out or (LAYOUT.model(source) if source in known.models else LAYOUT.raw(source))
    if local_copy is not None:
        take(chosen, local_copy, out)
        return
    with downloading(source) as progress:
        fetch_source(chosen, out, partial(download, progress=progress), lock)


@app.command()
def corpus(
    dataset: Annotated[str, typer.Argument(help="A data set of the registry or the grid.")],
    raw: Annotated[Path, typer.Option(help="Folder of its fetched source.")],
    out: Annotated[Path, typer.Option(help="Corpus folder to write.")],
    registry: RegistryOption = REGISTRY,
    grid: Annotated[
        Path | None, typer.Option(help="A grid's configuration, for data sets described in it.")
    ] = None,
) -> None:
    """Make documents, labels and their matrices from a fetched source, or a folder of one's own."""
    from haste.data.build import build_corpus
    from haste.data.registry import load_registry
    from haste.grid import read_grid
    from haste.settings import naming

    known = load_registry(registry)
    if grid is not None:
        settings = read_grid([grid]).dataset_settings
        with naming(grid):
            known = known.with_datasets(settings)
    chosen = known.dataset(dataset)
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


@app.command()
def tokenize(
    corpus: CorpusOption,
    model: Annotated[Path, typer.Option(help="Model folder with tokenizer.json.")],
    out: Annotated[Path, typer.Option(help="Token folder to write.")],
    max_len: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens kept of a document, special ones included; if not given, the data set's.",
        ),
    ] = None,
    encoder: Annotated[
        Literal["bag", "transformer"],
        typer.Option(help="What is to read them: a transformer's documents have a limit."),
    ] = "bag",
) -> None:
    """Cut documents into the token ids of a model's tokenizer."""
    from haste.data.corpus import load_corpus
    from haste.data.tokens import tokenize as tokenize_corpus
    from haste.pretrained import check_fetched, check_length

    opened = load_corpus(corpus)
    length = max_len or opened.info.max_len
    check_length(encoder, model, length)
    if opened.info.has_text:
        check_fetched(model)
    with counting("Tokenising", sum(opened.info.documents.values())) as tick:
        info = tokenize_corpus(opened, model, length, out, tick)
    log.info(
        "%s: %.1f %s a training document",
        opened.info.dataset,
        info.n_tokens["train"] / opened.info.documents["train"],
        "features" if info.weighted else f"tokens (at most {info.max_len})",
    )
