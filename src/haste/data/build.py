"""Making the corpus of a data set from a fetched source."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from haste.checksums import file_sums
from haste.data import debian, wordnet, xmc
from haste.data.corpus import CorpusInfo, CorpusWriter
from haste.data.fetch import verify
from haste.data.linked import Document, Tick, write_linked
from haste.data.readers import Layout, detect
from haste.data.readers.base import SPLITS as PUBLISHED
from haste.data.registry import Dataset
from haste.errors import DataError

log = logging.getLogger(__name__)

PROVENANCE = ("via", "package", "version", "url", "file", "sha256")
GENERATED = "none: generated"
OWN_LICENCE = "not stated: a folder of the user's own"


def build_corpus(
    dataset: Dataset, raw: Path | str, out: Path | str, tick: Tick | None = None
) -> CorpusInfo:
    """Read the source in `raw` (checked against its SOURCE.json), or the user's own folder that
    `raw` is for a data set with a path, and write the corpus to `out`.

    `tick` is called with the number of documents read so far. Raises DataError when the source is
    missing, damaged or another one, when the corpus would be empty, or when its counts are not
    those the registry expects.
    """
    licence, source = _provenance(dataset, Path(raw))
    if dataset.path:
        # before they are read: a change meanwhile must not pass for what was read
        source["files"] = file_sums(source_files(dataset, raw), raw)
    described = {
        "dataset": dataset.name,
        "propensity_a": dataset.propensity_a,
        "propensity_b": dataset.propensity_b,
        "opaque_labels": dataset.opaque_labels,
        "filtered": dataset.filtered,
        "max_len": dataset.max_len,
        "licence": licence,
        "source": source,
    }
    return BUILDERS[dataset.kind](dataset, Path(raw), Path(out), described, tick)


def source_files(dataset: Dataset, raw: Path | str) -> list[Path]:
    """The files in `raw` that the corpus is made from, whatever else lies there; raises DataError
    when they are not there."""
    if dataset.kind == "wordnet":
        return wordnet.wordnet_files(raw)
    if dataset.kind == "debian":
        return debian.debian_files(raw)
    return detect(raw, dataset.text).files()


def _provenance(dataset: Dataset, raw: Path) -> tuple[str, dict[str, Any]]:
    """The licence, and what CorpusInfo says of the source."""
    if dataset.path:
        return OWN_LICENCE, {"path": dataset.path}
    if dataset.synth:
        return GENERATED, {"synth": dict(dataset.synth)}
    record = verify(raw)
    if record.name != dataset.source:
        raise DataError(
            f"{raw}: holds the source {record.name!r}, {dataset.name} is made of {dataset.source!r}."
        )
    said = {key: getattr(record, key) for key in PROVENANCE}
    return record.licence, {key: value for key, value in said.items() if value}


def check_counts(dataset: Dataset, counts: Mapping[str, int]) -> None:
    """Raise DataError showing both where the registry expects other counts than `counts`, which may
    be some of them."""
    wrong = [
        f"{key}: expected {number}, found {counts[key]}"
        for key, number in dataset.expected.items()
        if key in counts and counts[key] != number
    ]
    if wrong:
        raise DataError(
            f"{dataset.name}: {'; '.join(wrong)}. {'Fetch' if dataset.source else 'Correct'} the source, or "
            "its `expected` if the data set has changed."
        )


def _xmc(
    dataset: Dataset, raw: Path, out: Path, described: Mapping[str, Any], tick: Tick | None
) -> CorpusInfo:
    layout = detect(raw, dataset.text)
    log.info("%s: %s layout in %s", dataset.name, layout.name, layout.folder)
    check_counts(dataset, xmc.declared_counts(layout))
    if dataset.filtered:
        _check_filters(dataset, layout)
    validation = xmc.held_out(layout.count("train"), dataset.validation)
    with CorpusWriter(out) as writer:
        streamed = xmc.stream(layout, validation, writer, tick)
        n_ids = streamed.n_ids if layout.n_labels is None else layout.n_labels
        space = xmc.arrange_labels(streamed, n_ids)
        rows = {split: len(labels) for split, labels in streamed.labels.items()}
        check_counts(dataset, {"labels": n_ids, **rows})
        return writer.finish(
            positives={s: space.positives(labels) for s, labels in streamed.labels.items()},
            reciprocal=xmc.filter_matrices(layout, space, validation),
            labels=xmc.table_of_labels(layout, space, opaque=dataset.opaque_labels),
            features=streamed.features,
            **described,
        )


def _check_filters(dataset: Dataset, layout: Layout) -> None:
    """Without the publishers' lists nothing would be filtered; an empty one is an answer."""
    for path in map(layout.filter_path, PUBLISHED):
        if not path.is_file():
            raise DataError(
                f"{path}: no such file, but {dataset.name} has `filtered: true`, so the pairs listed there "
                "leave the predictions. Put it there (empty, if there is no such pair), or set "
                "`filtered: false`."
            )


def _wordnet(
    dataset: Dataset, raw: Path, out: Path, described: Mapping[str, Any], tick: Tick | None
) -> CorpusInfo:
    synsets = wordnet.read_synsets(raw, tick)
    documents = wordnet.build_documents(synsets, dataset.root or None)
    _check_linked(dataset, documents)
    return write_linked(out, documents, lambda uid: synsets[uid].name, **described)


def _debian(
    dataset: Dataset, raw: Path, out: Path, described: Mapping[str, Any], tick: Tick | None
) -> CorpusInfo:
    documents = debian.build_documents(debian.read_packages(raw, tick))
    _check_linked(dataset, documents)
    return write_linked(out, documents, str, **described)


def _check_linked(dataset: Dataset, documents: Mapping[str, Sequence[Document]]) -> None:
    counts = {split: len(rows) for split, rows in documents.items()}
    labels = {label for document in documents["train"] for label in document.labels}
    check_counts(dataset, {**counts, "labels": len(labels)})


BUILDERS = {"debian": _debian, "wordnet": _wordnet, "xmc": _xmc}
