"""Subcommands that prepare the labels: embed, group."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from haste.cli.app import CorpusOption, app
from haste.progress import counting, working

log = logging.getLogger(__name__)


@app.command()
def embed(
    corpus: CorpusOption,
    tokens: Annotated[Path, typer.Option(help="Token folder, for the encoder's tokenizer.")],
    model: Annotated[Path, typer.Option(help="Folder of the pretrained model.")],
    encoder: Annotated[Literal["bag", "transformer", "none"], typer.Option(help="As pretrained.")],
    out: Annotated[Path, typer.Option(help="Embeddings to write (.npy).")],
    pooling: Annotated[
        Literal["mean", "cls"], typer.Option(help="Of the features of a document's tokens.")
    ] = "mean",
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu or cuda. A GPU is faster by far, and the last digits depend on it."
        ),
    ] = "cpu",
) -> None:
    """Embed each label: the mean features of its training documents, scaled to length 1."""
    import numpy as np

    from haste.checksums import remove_beside, write_beside
    from haste.data.corpus import load_corpus
    from haste.device import choose_device
    from haste.encoders.features import encode_training_documents
    from haste.files import atomic, mapped_array
    from haste.labels.embed import label_embeddings
    from haste.paths import TokenDir

    chosen = choose_device(device)
    opened = load_corpus(corpus)
    n_labels = opened.info.n_labels
    remove_beside(out)
    with atomic(out) as temporary:
        with counting("Encoding documents", opened.info.documents["train"]) as tick:
            features = encode_training_documents(
                encoder,
                model,
                TokenDir(tokens),
                opened.directory,
                pooling=pooling,
                # those of millions of documents do not fit into memory
                scratch=out.parent,
                tick=tick,
                device=chosen,
            )
        belongs = opened.positives("train")[:, :n_labels]
        shape = (n_labels, features.shape[1])
        embeddings = mapped_array(temporary, np.float32, shape)
        label_embeddings(features, belongs, embeddings)
        embeddings.flush()
    write_beside(out)
    log.info("%s: %d labels in %d dimensions", out, *shape)


@app.command()
def group(
    corpus: CorpusOption,
    order: Annotated[
        str,
        typer.Option(
            help="What to make, e.g. semantic-h0.1-g16-train-bag-all-MiniLM-L6-v2-32-s0: grouping, head "
            "ratio, group size, counted splits, encoder, seed."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Order to write (.npz).")],
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="Label embeddings (.npy) of that encoder; semantic and balanced group by them, and "
            "cohesion is measured by them."
        ),
    ] = None,
) -> None:
    """Order the labels: head, most frequent first, then the tail, group by group."""
    # which of its builds faiss tries to load is not news
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    from haste.data.corpus import load_corpus
    from haste.labels.embed import load_embeddings
    from haste.labels.grouping import order_labels
    from haste.labels.spec import OrderSpec

    spec = OrderSpec.parse(order)
    opened = load_corpus(corpus)
    n_labels = opened.info.n_labels
    vectors = None if embeddings is None else load_embeddings(embeddings, n_labels)
    frequencies = opened.label_frequencies(spec.frequencies)[:n_labels]
    with working(f"Grouping {n_labels} labels ({spec.grouping})"):
        made = order_labels(spec, vectors, frequencies)
    made.save(out)
    log.info(
        "%s: %d labels: head %d, tail %d in %d groups of %d",
        out,
        made.n_labels,
        made.head,
        made.n_tail,
        made.n_groups,
        made.group_size,
    )
    if made.cohesion.size:
        log.info("mean cohesion of the %s groups: %.4f", spec.grouping, made.cohesion.mean())
