"""A data set in one of the published layouts as a corpus: its documents pass through block by block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from haste.data.corpus import CorpusWriter, document_table, label_table
from haste.data.labelspace import LabelSpace
from haste.data.ragged import Ragged, RaggedWriter
from haste.data.readers import Block, Layout
from haste.errors import DataError
from haste.paths import SPLITS

log = logging.getLogger(__name__)

MOST_VALIDATION = 10_000
"""documents; measuring more between epochs takes time and says no more"""
SEED = 0
"""of the choice of validation documents"""


def declared_counts(layout: Layout) -> dict[str, int]:
    """The counts of `Dataset.expected` that are known before the documents are read."""
    counts = {"train_all": layout.count("train"), "test": layout.count("test")}
    counts["features"] = layout.n_features
    if layout.n_labels is not None:
        counts["labels"] = layout.n_labels
    return counts


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


@dataclass(frozen=True)
class Streamed:
    """What is left in hand of the documents once their texts are written; by split of a corpus."""

    labels: Mapping[str, Ragged]
    """label ids as the layout counts them, in the order of the files"""
    features: Mapping[str, sp.csr_matrix] | None

    @property
    def n_ids(self) -> int:
        """One more than the largest label id."""
        return 1 + max(int(rows.values.max(initial=-1)) for rows in self.labels.values())


def stream(
    layout: Layout,
    validation: np.ndarray,
    writer: CorpusWriter,
    tick: Callable[[int], None] | None = None,
) -> Streamed:
    """Hand all documents to `writer`, those of `validation` (bool [N]) to that split.

    `tick` is called with the number of documents read so far. Raises DataError for anything that is
    not as the layout wants it.
    """
    root = writer.directory.root
    labels = {split: RaggedWriter.temporary(root, np.int32) for split in SPLITS}
    features = {split: _FeatureWriter(root) for split in SPLITS}
    done = 0
    for published in ("train", "test"):
        first = 0
        for block in layout.blocks(published):
            for split, rows in _parts(published, validation[first : first + len(block)], block):
                part = block.labels.take(rows)
                labels[split].append(part.values, part.lengths())
                if block.features is not None:
                    features[split].append(block.features[rows])
                writer.add(split, _documents(block, rows))
            first += len(block)
            done += len(block)
            if tick:
                tick(done)
    return Streamed(
        labels={split: spool.ragged() for split, spool in labels.items()},
        features=None
        if layout.has_text
        else {split: spool.matrix(layout.n_features) for split, spool in features.items()},
    )


def arrange_labels(streamed: Streamed, n_ids: int) -> LabelSpace:
    """The label space of documents whose label ids are below `n_ids`."""
    space = LabelSpace.of(streamed.labels, n_ids)
    if len(space.ids) < n_ids:
        left_out = n_ids - len(space.ids)
        log.info("%d of %d labels belong to no document; left out", left_out, n_ids)
    return space


def table_of_labels(layout: Layout, space: LabelSpace, *, opaque: bool) -> pa.Table:
    """The label table of a corpus; no text if `opaque`."""
    labels = layout.labels(space.ids)
    texts = pa.nulls(len(labels), pa.string()) if opaque else labels["text"]
    return label_table(labels["uid"], labels["name"], texts, space.n_labels)


def filter_matrices(
    layout: Layout, space: LabelSpace, validation: np.ndarray
) -> dict[str, sp.csr_matrix]:
    """By split, validation and test: the pairs that the publishers leave out; empty where they list none."""
    none = np.zeros((0, 2), dtype=np.int64)
    rows = {
        "train": np.where(validation, np.cumsum(validation) - 1, -1),
        "test": np.arange(layout.count("test")),
    }
    matrices = {
        split: space.pairs(none if pairs is None else pairs, rows[split])
        for split in rows
        for pairs in (layout.filter_pairs(split),)
    }
    return {"validation": matrices["train"], "test": matrices["test"]}


class _FeatureWriter:
    """A CSR matrix of float32 that is collected on disk."""

    def __init__(self, folder: Path) -> None:
        self._ids = RaggedWriter.temporary(folder, np.int32)
        self._values = RaggedWriter.temporary(folder, np.float32)

    def append(self, rows: sp.csr_matrix) -> None:
        lengths = np.diff(rows.indptr)
        self._ids.append(rows.indices, lengths)
        self._values.append(rows.data, lengths)

    def matrix(self, width: int) -> sp.csr_matrix:
        ids, values = self._ids.ragged(), self._values.ragged()
        return sp.csr_matrix((values.values, ids.values, ids.offsets), shape=(len(ids), width))


def _parts(published: str, validation: np.ndarray, block: Block) -> list[tuple[str, np.ndarray]]:
    """The splits that documents of a block go to, and their rows in it."""
    if published == "test":
        return [("test", np.arange(len(block)))]
    return [("train", np.flatnonzero(~validation)), ("validation", np.flatnonzero(validation))]


def _documents(block: Block, rows: np.ndarray) -> pa.Table:
    uids = [block.uids[row] for row in rows]
    texts = [None] * len(rows) if block.texts is None else [block.texts[row] for row in rows]
    return document_table(uids, texts)
