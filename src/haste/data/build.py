"""Making the corpus of a data set from a fetched source."""

from __future__ import annotations

import logging
from pathlib import Path

from haste.data.corpus import (
    EVALUATED,
    CorpusContent,
    CorpusInfo,
    document_table,
    label_table,
    write_corpus,
)
from haste.data.fetch import verify
from haste.data.labelspace import label_space, mirrored_pairs, positives_matrix
from haste.data.registry import Dataset
from haste.data.wordnet import Tick, build_documents, read_synsets
from haste.errors import DataError

log = logging.getLogger(__name__)

PROVENANCE = ("via", "package", "version", "file", "sha256")


def build_corpus(
    dataset: Dataset, raw: Path | str, out: Path | str, tick: Tick | None = None
) -> CorpusInfo:
    """Read the source in `raw` (checked against its SOURCE.json) and write the corpus to `out`.

    Raises DataError when the source is missing, damaged or another one, when the corpus would be
    empty, or when its counts are not those the registry expects.
    """
    record = verify(raw)
    if record.name != dataset.source:
        raise DataError(
            f"{raw}: holds the source {record.name!r}, {dataset.name} is made of {dataset.source!r}."
        )
    content = READERS[dataset.kind](dataset, Path(raw), tick)
    check_counts(dataset, content)
    return write_corpus(
        out,
        content,
        dataset=dataset.name,
        propensity_a=dataset.propensity_a,
        propensity_b=dataset.propensity_b,
        opaque_labels=dataset.opaque_labels,
        max_len=dataset.max_len,
        licence=record.licence,
        source={key: getattr(record, key) for key in PROVENANCE},
    )


def check_counts(dataset: Dataset, content: CorpusContent) -> None:
    """Raise DataError showing both where the registry expects other counts."""
    found = {split: len(table) for split, table in content.documents.items()}
    found["labels"] = content.n_labels
    wrong = [
        f"{key}: expected {number}, found {found[key]}"
        for key, number in dataset.expected.items()
        if found[key] != number
    ]
    if wrong:
        raise DataError(
            f"{dataset.name}: {'; '.join(wrong)}. Fetch the source again, or correct `expected` in "
            "datasets.yaml if the data set has changed."
        )


def _wordnet(dataset: Dataset, raw: Path, tick: Tick | None) -> CorpusContent:
    synsets = read_synsets(raw, tick)
    documents = build_documents(synsets, dataset.root or None)
    space = label_space(documents)
    uids = {split: [d.uid for d in rows] for split, rows in documents.items()}
    positives = {split: positives_matrix(rows, space) for split, rows in documents.items()}
    return CorpusContent(
        documents={
            split: document_table(uids[split], [d.text for d in rows])
            for split, rows in documents.items()
        },
        positives=positives,
        mirrored={
            split: mirrored_pairs(
                uids[split], positives[split], uids["train"], positives["train"], space.uids
            )
            for split in EVALUATED
        },
        labels=label_table(
            uids=space.uids,
            names=[synsets[uid].name for uid in space.uids],
            texts=[None] * len(space),
            n_labels=space.n_labels,
        ),
    )


READERS = {"wordnet": _wordnet}
