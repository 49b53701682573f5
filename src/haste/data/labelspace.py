"""From documents with label uids to matrices: which labels there are and in which column each stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from haste.paths import SPLITS


@dataclass(frozen=True)
class Document:
    """A document and the uids of its labels, in any order, each once."""

    uid: str
    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a data set in the order of their columns.

    The first `n_labels` have a training document; those after it only occur in validation or test,
    where they stay in the truth but can never be predicted.
    """

    uids: tuple[str, ...]
    n_labels: int

    def __len__(self) -> int:
        return len(self.uids)


def label_space(documents: Mapping[str, Sequence[Document]]) -> LabelSpace:
    """The labels of the training documents sorted by uid, then, sorted too, the other labels.

    `documents`: by split.
    """
    trainable = {label for document in documents["train"] for label in document.labels}
    everywhere = {label for split in SPLITS for d in documents[split] for label in d.labels}
    return LabelSpace(
        (*sorted(trainable), *sorted(everywhere - trainable)), n_labels=len(trainable)
    )


def arrange_columns(values: Mapping[str, np.ndarray], n_ids: int) -> tuple[np.ndarray, int]:
    """Label ids in the order of their columns (int64 [L + E]), and L.

    `values`: by split, all label ids (integers below `n_ids`) of its documents, in any order. As in
    `label_space`, those of training documents come first, ascending, then the others.
    """
    trained, met = np.zeros(n_ids, dtype=bool), np.zeros(n_ids, dtype=bool)
    trained[values["train"]] = True
    for split in SPLITS:
        met[values[split]] = True
    first, last = np.flatnonzero(trained), np.flatnonzero(met & ~trained)
    return np.concatenate((first, last)), len(first)


def positives_matrix(documents: Sequence[Document], space: LabelSpace) -> sp.csr_matrix:
    """float32 CSR [N, L + E] of ones, one row a document, columns ascending within a row."""
    column = {uid: i for i, uid in enumerate(space.uids)}
    rows = [sorted(column[label] for label in document.labels) for document in documents]
    indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=indptr[1:])
    indices = np.fromiter((c for row in rows for c in row), dtype=np.int32, count=indptr[-1])
    data = np.ones(len(indices), dtype=np.float32)
    return sp.csr_matrix((data, indices, indptr), shape=(len(rows), len(space)))


def reciprocal_pairs(
    uids: Sequence[str],
    positives: sp.csr_matrix,
    train_uids: Sequence[str],
    train_positives: sp.csr_matrix,
    label_uids: Sequence[str],
) -> sp.csr_matrix:
    """float32 CSR [N, L + E]: the positives (i, j) whose reverse (j, i) is a training positive.

    That is: label j is itself a training document, and document i is one of its labels. Such a pair
    can be answered by turning round one seen in training.
    """
    column = {uid: i for i, uid in enumerate(label_uids)}
    train_row = {uid: i for i, uid in enumerate(train_uids)}
    document_as_label = np.array([column.get(uid, -1) for uid in uids], dtype=np.int64)
    label_as_document = np.array([train_row.get(uid, -1) for uid in label_uids], dtype=np.int64)

    pairs = positives.tocoo()
    reverse_row, reverse_column = label_as_document[pairs.col], document_as_label[pairs.row]
    possible = (reverse_row >= 0) & (reverse_column >= 0)
    width = positives.shape[1]
    train = train_positives.tocoo()
    reciprocal = possible & np.isin(
        reverse_row * width + reverse_column, train.row.astype(np.int64) * width + train.col
    )
    kept = (pairs.row[reciprocal], pairs.col[reciprocal])
    ones = np.ones(len(kept[0]), dtype=np.float32)
    return sp.csr_matrix((ones, kept), shape=positives.shape)
