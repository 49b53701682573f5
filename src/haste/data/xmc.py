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
from haste.data.labelspace import arrange_columns
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


@dataclass(frozen=True)
class Columns:
    """Which label id stands in which column of a corpus."""

    ids: np.ndarray
    """int64 [L + E]: label ids by column; ids that no document has are left out"""
    n_labels: int
    """L"""
    of: np.ndarray
    """int32 [ids of the layout]: columns by label id, -1 for those left out"""

    @classmethod
    def arrange(cls, labels: Mapping[str, Ragged], n_ids: int) -> Columns:
        """From all label ids of each split, which are below `n_ids`."""
        ids, n_labels = arrange_columns({s: rows.values for s, rows in labels.items()}, n_ids)
        if len(ids) < n_ids:
            log.info("%d of %d labels belong to no document; left out", n_ids - len(ids), n_ids)
        of = np.full(n_ids, -1, dtype=np.int32)
        of[ids] = np.arange(len(ids), dtype=np.int32)
        return cls(ids, n_labels, of)

    def positives(self, labels: Ragged) -> sp.csr_matrix:
        """float32 CSR [N, L + E] of ones, columns ascending within a row; a label named twice counts once."""
        values = np.ones(len(labels.values), dtype=np.float32)
        columns = self.of[labels.values]
        matrix = sp.csr_matrix(
            (values, columns, labels.offsets), shape=(len(labels), len(self.ids))
        )
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix

    def filtered(self, pairs: np.ndarray, rows: np.ndarray) -> sp.csr_matrix:
        """float32 CSR [N, L + E] of ones at `pairs` int64 [P, 2] of document and label id.

        `rows` int64: row of the matrix by document of the pairs, -1 for one of another split.
        """
        shape = (1 + int(rows.max(initial=-1)), len(self.ids))
        pairs = pairs[pairs[:, 1] < len(self.of)]
        row, column = rows[pairs[:, 0]], self.of[pairs[:, 1]]
        here = (row >= 0) & (column >= 0)
        ones = np.ones(np.count_nonzero(here), dtype=np.float32)
        matrix = sp.csr_matrix((ones, (row[here], column[here])), shape=shape)
        matrix.data[:] = 1
        return matrix

    def table(self, layout: Layout, opaque: bool) -> pa.Table:
        """The label table of a corpus; no text if `opaque`."""
        labels = layout.labels(self.ids)
        texts = pa.nulls(len(labels), pa.string()) if opaque else labels["text"]
        return label_table(labels["uid"], labels["name"], texts, self.n_labels)


def filter_matrices(
    layout: Layout, columns: Columns, validation: np.ndarray
) -> dict[str, sp.csr_matrix]:
    """By split, validation and test: the pairs that the publishers leave out; empty where they list none."""
    none = np.zeros((0, 2), dtype=np.int64)
    rows = {
        "train": np.where(validation, np.cumsum(validation) - 1, -1),
        "test": np.arange(layout.count("test")),
    }
    matrices = {
        split: columns.filtered(none if pairs is None else pairs, rows[split])
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
