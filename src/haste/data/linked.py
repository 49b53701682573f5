"""Data sets of documents that are linked to labels, which may be documents themselves: synsets that point at synsets,
packages that need packages, senses that words express."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haste.data.corpus import (
    EVALUATED,
    CorpusInfo,
    document_table,
    label_table,
    write_corpus,
)
from haste.data.labelspace import LabelSpace, reciprocal_pairs
from haste.data.ragged import Ragged

Tick = Callable[[int], None]
"""called with the number of documents read so far"""


@dataclass(frozen=True)
class Document:
    """A document and the uids of its labels, in any order, each once."""

    uid: str
    text: str
    labels: tuple[str, ...]


def split_of(uid: str) -> str:
    """train, validation or test, by the hash of the uid, so that it never depends on anything else."""
    if _sha1(uid) % 5 == 0:
        return "test"
    return "validation" if _sha1(f"validation:{uid}") % 20 == 0 else "train"


def write_linked(
    out: Path,
    documents: Mapping[str, Sequence[Document]],
    display_names: Mapping[str, str],
    **described: Any,
) -> CorpusInfo:
    """Write the corpus of the documents of each split; `display_names`: by a label's uid, which is shown
    where it has none; `described`: see `CorpusWriter.finish`.

    A test pair whose reverse is a training pair counts as reciprocal.
    """
    names = sorted({label for rows in documents.values() for d in rows for label in d.labels})
    id_of = {uid: label for label, uid in enumerate(names)}
    labels = {split: _label_ids(rows, id_of) for split, rows in documents.items()}
    space = LabelSpace.of(labels, len(names))
    label_uids = [names[label] for label in space.ids]
    uids = {split: [d.uid for d in rows] for split, rows in documents.items()}
    positives = {split: space.positives(rows) for split, rows in labels.items()}
    return write_corpus(
        out,
        {
            split: document_table(uids[split], [d.text for d in rows])
            for split, rows in documents.items()
        },
        positives,
        {
            split: reciprocal_pairs(
                uids[split], positives[split], uids["train"], positives["train"], label_uids
            )
            for split in EVALUATED
        },
        label_table(
            uids=label_uids,
            names=[display_names.get(uid, uid) for uid in label_uids],
            texts=[None] * len(label_uids),
            n_labels=space.n_labels,
        ),
        **described,
    )


def _label_ids(documents: Sequence[Document], id_of: Mapping[str, int]) -> Ragged:
    return Ragged.of([np.array([id_of[label] for label in d.labels], int) for d in documents])


def _sha1(text: str) -> int:
    return int(hashlib.sha1(text.encode()).hexdigest(), 16)
