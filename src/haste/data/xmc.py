"""A data set in one of the published layouts as a corpus: its documents pass through block by block."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from haste.data.corpus import CorpusInfo, CorpusWriter, document_table, label_table
from haste.data.labelspace import LabelSpace
from haste.data.linked import Tick
from haste.data.ragged import Ragged, RaggedWriter
from haste.data.readers import Block, Layout, detect
from haste.data.readers.base import SPLITS as PUBLISHED
from haste.data.registry import Dataset
from haste.errors import DataError
from haste.paths import SPLITS

log = logging.getLogger(__name__)

MOST_VALIDATION = 10_000
"""documents; measuring more between epochs takes time and says no more"""
SEED = 0
"""of the choice of validation documents"""


def build_xmc(
    dataset: Dataset, raw: Path, out: Path, described: Mapping[str, Any], tick: Tick | None
) -> CorpusInfo:
    """Write the corpus of the data set whose files lie in `raw`; `described`, see `CorpusWriter.finish`.

    Raises DataError for anything that is not as its layout wants it, and before the documents are read
    where the files declare other counts than the registry expects.
    """
    layout = detect(raw, dataset.text)
    log.info("%s: %s layout in %s", dataset.name, layout.name, layout.folder)
    counts = {"train_all": layout.count("train"), "test": layout.count("test")}
    declared = {} if layout.n_labels is None else {"labels": layout.n_labels}
    dataset.check_counts({**counts, **declared, "features": layout.n_features})
    if dataset.filtered:
        _check_filters(dataset, layout)
    validation = held_out(counts["train_all"], dataset.validation)
    with CorpusWriter(out) as writer:
        labels, features = stream(layout, validation, writer, tick)
        n_ids = layout.n_labels
        if n_ids is None:
            n_ids = 1 + max(int(rows.values.max(initial=-1)) for rows in labels.values())
        space = LabelSpace.of(labels, n_ids)
        if len(space.ids) < n_ids:
            left_out = n_ids - len(space.ids)
            log.info("%d of %d labels belong to no document; left out", left_out, n_ids)
        sizes = {split: len(rows) for split, rows in labels.items()}
        dataset.check_counts({"labels": n_ids, **sizes})
        return writer.finish(
            positives={split: space.positives(rows) for split, rows in labels.items()},
            reciprocal=_filter_matrices(layout, space, validation),
            labels=_label_table(layout, space, opaque=dataset.opaque_labels),
            features=features,
            **described,
        )


def held_out(documents: int, share: float) -> np.ndarray:
    """bool [documents]: which training documents are validation documents, at least one, at most 10,000."""
    if documents < 2:
        raise DataError(
            f"the train split has {documents} documents; one is needed for validation and one to "
            "train on. Check the source."
        )
    number = min(max(1, round(share * documents)), MOST_VALIDATION, documents - 1)
    chosen = np.zeros(documents, dtype=bool)
    chosen[np.random.default_rng(SEED).choice(documents, number, replace=False)] = True
    return chosen


def stream(
    layout: Layout, validation: np.ndarray, writer: CorpusWriter, tick: Tick | None = None
) -> tuple[dict[str, Ragged], dict[str, sp.csr_matrix] | None]:
    """Hand all documents to `writer`, those of `validation` (bool [N]) to that split.

    Returns by split the label ids, as the layout counts them, and float32 [N, D] features, if it has any.
    """
    root = writer.directory.root
    labels, indices, values = (
        {split: RaggedWriter.temporary(root, dtype) for split in SPLITS}
        for dtype in (np.int32, np.int32, np.float32)
    )
    done = 0
    for published in PUBLISHED:
        first = 0
        for block in layout.blocks(published):
            held = validation[first : first + len(block)]
            for split, rows in _parts(published, held, block):
                part = block.labels.take(rows)
                labels[split].append(part.values, part.lengths())
                if block.features is not None:
                    features = block.features[rows]
                    indices[split].append(features.indices, np.diff(features.indptr))
                    values[split].append(features.data, np.diff(features.indptr))
                writer.add(split, _documents(block, rows))
            first += len(block)
            done += len(block)
            if tick:
                tick(done)
    matrices = {
        split: sp.csr_matrix(
            (values[split].ragged().values, columns.values, columns.offsets),
            shape=(len(columns), layout.n_features),
        )
        for split, columns in ((split, indices[split].ragged()) for split in SPLITS)
    }
    return {s: labels[s].ragged() for s in SPLITS}, None if layout.has_text else matrices


def _parts(published: str, held: np.ndarray, block: Block) -> list[tuple[str, np.ndarray]]:
    """The splits that documents of a block go to, and their rows in it."""
    if published == "test":
        return [("test", np.arange(len(block)))]
    return [("train", np.flatnonzero(~held)), ("validation", np.flatnonzero(held))]


def _documents(block: Block, rows: np.ndarray) -> pa.Table:
    uids = [block.uids[row] for row in rows]
    texts = [None] * len(rows) if block.texts is None else [block.texts[row] for row in rows]
    return document_table(uids, texts)


def _check_filters(dataset: Dataset, layout: Layout) -> None:
    """Without the publishers' lists nothing would be filtered; an empty one is an answer."""
    for path in map(layout.filter_path, PUBLISHED):
        if not path.is_file():
            raise DataError(
                f"{path}: no such file, but {dataset.name} has `filtered: true`, so the pairs listed there "
                "leave the predictions. Put it there (empty, if there is no such pair), or set "
                "`filtered: false`."
            )


def _filter_matrices(
    layout: Layout, space: LabelSpace, validation: np.ndarray
) -> dict[str, sp.csr_matrix]:
    """By split, validation and test: the pairs that the publishers leave out; empty where they list none."""
    matrices = []
    held = np.where(validation, np.cumsum(validation) - 1, -1)
    for split, rows in (("train", held), ("test", np.arange(layout.count("test")))):
        pairs = layout.filter_pairs(split)
        matrices.append(space.pairs(np.zeros((0, 2), int) if pairs is None else pairs, rows))
    return dict(zip(("validation", "test"), matrices, strict=True))


def _label_table(layout: Layout, space: LabelSpace, *, opaque: bool) -> pa.Table:
    labels = layout.labels(space.ids)
    texts = pa.nulls(len(labels), pa.string()) if opaque else labels["text"]
    return label_table(labels["uid"], labels["name"], texts, space.n_labels)
