"""The subcommand that generates data: synth."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from haste.cli.app import app
from haste.progress import counting

log = logging.getLogger(__name__)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    like: Annotated[
        str | None,
        typer.Option(help="Take the numbers of a published data set, such as amazon-3m."),
    ] = None,
    scale: Annotated[
        float,
        typer.Option(min=0, max=1000, help="With --like: this share of its documents and labels."),
    ] = 1.0,
    documents: Annotated[int | None, typer.Option(help="Training documents.")] = None,
    test_documents: Annotated[
        int | None, typer.Option(help="Test documents; if not given, a quarter as many.")
    ] = None,
    labels: Annotated[int | None, typer.Option(help="Labels.")] = None,
    labels_per_document: Annotated[
        float | None,
        typer.Option(help="Labels of a document, on average; if neither given nor published, 5."),
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(
            help="Words of a document, on average; if not given, 50, or as in the data set."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other documents.")] = 0,
) -> None:
    """Generate a data set whose labels can be learnt, as JSON lines."""
    from haste.data.synthetic import generate, planned

    plan = planned(
        like=like,
        scale=scale,
        documents=documents,
        test_documents=test_documents,
        labels=labels,
        labels_per_document=labels_per_document,
        words=words,
        seed=seed,
    )
    with counting("Writing", plan.documents + plan.test_documents) as tick:
        generate(plan, out, tick)
    log.info(
        "%s: %d training and %d test documents with %d labels",
        out,
        plan.documents,
        plan.test_documents,
        plan.labels,
    )
