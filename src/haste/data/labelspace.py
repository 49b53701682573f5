"""The label space of a data set: which label stands in which column of its matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from haste.data.ragged import Ragged
from haste.paths import SPLITS


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a data set in the order of their columns.

    The first `n_labels` have a training document; those after it only occur in validation or test,
    where they stay in the truth but can never be predicted. Both come in the order of their ids.
    """

    ids: np.ndarray
    """int64 [L + E]: label ids by column; ids that no document has are left out"""
    n_labels: int
    """L"""
    column_of: np.ndarray
    """int32 [ids of the source]: columns by label id, -1 for those left out"""

    @classmethod
    def of(cls, labels: Mapping[str, Ragged], n_ids: int) -> LabelSpace:
        """From the label ids, integers below `n_ids`, of each split's documents."""
        trained, occurs = np.zeros(n_ids, dtype=bool), np.zeros(n_ids, dtype=bool)
        trained[labels["train"].values] = True
        for split in SPLITS:
            occurs[labels[split].values] = True
        ids = np.concatenate((np.flatnonzero(trained), np.flatnonzero(occurs & ~trained)))
        column_of = np.full(n_ids, -1, dtype=np.int32)
        column_of[ids] = np.arange(len(ids), dtype=np.int32)
        return cls(ids, int(trained.sum()), column_of)

    def positives(self, labels: Ragged) -> sp.csr_matrix:
        """float32 CSR [N, L + E] of ones, columns ascending within a row; a label named twice counts once."""
        values = np.ones(len(labels.values), dtype=np.float32)
        columns = self.column_of[labels.values]
        matrix = sp.csr_matrix(
            (values, columns, labels.offsets), shape=(len(labels), len(self.ids))
        )
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix

    def pairs(self, pairs: np.ndarray, row_of: np.ndarray) -> sp.csr_matrix:
        """float32 CSR [N, L + E] of ones at `pairs` int64 [P, 2] of document and label id.

        `row_of` int64: row of the matrix by document of the pairs, -1 for one of another split.
        """
        shape = (1 + int(row_of.max(initial=-1)), len(self.ids))
        pairs = pairs[pairs[:, 1] < len(self.column_of)]
        rows, columns = row_of[pairs[:, 0]], self.column_of[pairs[:, 1]]
        inside = (rows >= 0) & (columns >= 0)
        ones = np.ones(np.count_nonzero(inside), dtype=np.float32)
        matrix = sp.csr_matrix((ones, (rows[inside], columns[inside])), shape=shape)
        matrix.data[:] = 1
        return matrix


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
