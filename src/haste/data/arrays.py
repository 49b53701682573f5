"""Documents and labels in memory: texts, sparse features or dense embeddings, and their labels in any form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import scipy.sparse as sp

from haste.data.corpus import EVALUATED, CorpusInfo, document_table, label_table, write_corpus
from haste.data.labelspace import LabelSpace
from haste.data.ragged import Ragged
from haste.data.readers.dense import csr_of_dense
from haste.data.registry import PROPENSITY
from haste.data.xmc import held_out
from haste.errors import DataError
from haste.paths import SPLITS
from haste.textlines import is_whole

Documents: TypeAlias = Sequence[str] | np.ndarray | sp.spmatrix
"""texts [N], or features [N, D]: dense embeddings, or sparse"""
Labels: TypeAlias = sp.spmatrix | np.ndarray | Sequence[Sequence[str | int]] | Sequence[str | int]
"""[N, L], nonzero where a document has a label; or each document's labels, by name or number"""

VALIDATION = 0.04
TRIAL_VALIDATION = 0.1
"""share of the given documents that is held out; more where trials are compared by them"""
MOST_VALIDATION = 2000
"""documents held out"""


def as_documents(documents: Documents) -> list[str] | sp.csr_matrix:
    """Texts as a list, features as float32 CSR [N, D], of which dense ones keep their zeros; raises DataError."""
    if sp.issparse(documents):
        features = sp.csr_matrix(documents, dtype=np.float32)
        features.sum_duplicates()
    elif is_dense(documents):
        if documents.ndim != 2:
            raise DataError(f"X: shape {list(documents.shape)}; expected [documents, features].")
        features = csr_of_dense(documents)
    else:
        expected = (
            "a list of texts, or features as a numpy array or scipy matrix [documents, features]"
        )
        texts = _listed("X", documents, expected)
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"X: document {number} is {type(text).__name__}; give {expected}.")
            if not is_whole(text):
                raise DataError(
                    f"X: document {number} has half of a character (a surrogate); decode it anew, or leave it out."
                )
        return texts
    if not np.isfinite(features.data).all():
        raise DataError("X: has values that are not finite.")
    return features


def is_dense(values: object) -> TypeGuard[np.ndarray]:
    """Whether they are an array of numbers: dense embeddings, or a matrix of labels."""
    return isinstance(values, np.ndarray) and values.dtype.kind in "fiub"


def paired(
    documents: Documents, labels: Labels, names: Sequence[str | int] | None = None
) -> tuple[list[str] | sp.csr_matrix, NamedLabels]:
    """Documents and their labels, checked, see `as_documents` and `NamedLabels.of`; raises DataError, also where
    one has more rows than the other."""
    checked, named = as_documents(documents), NamedLabels.of(labels, names)
    number = len(checked) if isinstance(checked, list) else checked.shape[0]
    if number != len(named):
        raise DataError(
            f"X has {number} documents, Y has {len(named)}; give the labels of each document."
        )
    return checked, named


def _listed(name: str, values: Any, expected: str) -> list[Any]:
    """The entries of a list, a one-dimensional array or the like; raises DataError for anything else, such as one
    text, whose entries are characters, or a data frame, whose entries are the names of its columns."""
    refused = isinstance(values, str | bytes | Mapping) or getattr(values, "ndim", 1) != 1
    if refused or not isinstance(values, Iterable):
        raise DataError(f"{name} is {type(values).__name__}; give {expected}.")
    return list(values)


@dataclass(frozen=True)
class NamedLabels:
    """The labels of documents: ids from 0, and what the user calls each."""

    rows: Ragged
    names: list[str | int]

    @classmethod
    def of(cls, labels: Labels, names: Sequence[str | int] | None = None) -> NamedLabels:
        """From any form; with `names`, ids are places in it, and labels that it has not come behind it.

        Raises DataError for what is neither a matrix nor lists of names or of numbers from 0.
        """
        if sp.issparse(labels) or (is_dense(labels) and labels.ndim == 2):
            matrix = sp.csr_matrix(labels)
            matrix.eliminate_zeros()
            if not np.isfinite(matrix.data).all():
                raise DataError(
                    "Y: has values that are not finite; give 0 where there is no label."
                )
            columns = [
                matrix.indices[begin:end].tolist()
                for begin, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
            ]
        else:
            listed = labels.tolist() if isinstance(labels, np.ndarray) else labels
            expected = "a matrix [documents, labels], or a list of each document's labels"
            rows = _listed("Y", listed, expected)
            columns = [_plain_labels(number, row) for number, row in enumerate(rows)]
        # in the order of the names
        known = Counter(names)
        repeated = [name for name, count in known.items() if count > 1]
        if repeated:
            raise DataError(
                f"Y: several labels of the model are called {repeated[0]!r}, so labels cannot be told by their names. "
                "Hold predictions by id against the truth: haste evaluate --predictions."
            )
        used = {label for row in columns for label in row}
        if len({isinstance(label, str) for label in (*used, *known)}) > 1:
            raise DataError("Y: some labels are names, others numbers; give all in one form.")
        ordered = [*known, *sorted(used - known.keys())]
        place = {label: number for number, label in enumerate(ordered)}
        ids = [np.array([place[label] for label in row], np.int64) for row in columns]
        return cls(Ragged.of(ids), ordered)

    def __len__(self) -> int:
        return len(self.rows)


def _plain_labels(number: int, row: Any) -> list[str | int]:
    """The labels of document `number`, of which an only one may stand alone; raises DataError."""
    listed = row if isinstance(row, Iterable) and not isinstance(row, str | bytes) else [row]
    plain = [label.item() if isinstance(label, np.generic) else label for label in listed]
    for label in plain:
        is_number = isinstance(label, int) and not isinstance(label, bool) and label >= 0
        if not is_number and not (isinstance(label, str) and is_whole(label)):
            raise DataError(
                f"Y: document {number} has the label {label!r}; give names, or whole numbers from 0."
            )
    return plain


def write_arrays(
    root: Path,
    documents: list[str] | sp.csr_matrix,
    labels: NamedLabels,
    max_len: int,
    validation: float = VALIDATION,
) -> tuple[CorpusInfo, LabelSpace]:
    """A corpus of training documents, see `paired`, of which a share of `validation` is held out.

    There is no test split: the validation documents stand in its place. Raises DataError for documents
    that nothing could be learnt from.
    """
    number = len(labels)
    if number < 2:
        raise DataError(f"{number} documents; give at least two, one of them for validation.")
    held = held_out(number, min(validation, MOST_VALIDATION / number))
    rows = {"train": np.flatnonzero(~held), "validation": np.flatnonzero(held)}
    rows["test"] = rows["validation"]
    chosen = {split: labels.rows.take(rows[split]) for split in SPLITS}
    space = LabelSpace.of(chosen, len(labels.names))
    positives = {split: space.positives(chosen[split]) for split in SPLITS}
    texts: Sequence[str | None] = documents if isinstance(documents, list) else [None] * number
    names = [str(labels.names[label]) for label in space.ids]
    info = write_corpus(
        root,
        {
            split: document_table(
                [str(row) for row in chosen], [texts[row] for row in chosen.tolist()]
            )
            for split, chosen in rows.items()
        },
        positives,
        {split: sp.csr_matrix(positives[split].shape, dtype=np.float32) for split in EVALUATED},
        label_table(names, names, [None] * len(names), space.n_labels),
        None
        if isinstance(documents, list)
        else {split: documents[rows[split]] for split in SPLITS},
        dataset="arrays",
        propensity_a=PROPENSITY[0],
        propensity_b=PROPENSITY[1],
        opaque_labels=True,
        max_len=max_len,
        licence="not stated: arrays in memory",
        source={},
    )
    return info, space
