"""Making the corpus of a data set from a fetched source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from haste.checksums import file_sums
from haste.data import debian, wikdict, wordnet
from haste.data.corpus import CorpusInfo
from haste.data.fetch import verify
from haste.data.linked import Tick, write_linked
from haste.data.readers import detect
from haste.data.registry import Dataset
from haste.data.xmc import build_xmc
from haste.errors import DataError

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
    shared = ("propensity_a", "propensity_b", "opaque_labels", "filtered", "max_len")
    described = {"dataset": dataset.name, "licence": licence, "source": source}
    described |= {key: getattr(dataset, key) for key in shared}
    if dataset.kind == "xmc":
        return build_xmc(dataset, Path(raw), Path(out), described, tick)
    names: Mapping[str, str] = {}
    if dataset.kind == "wordnet":
        synsets = wordnet.read_synsets(raw, tick)
        documents = wordnet.build_documents(synsets, dataset.root or None)
        names = {uid: synset.name for uid, synset in synsets.items()}
    elif dataset.kind == "debian":
        documents = debian.build_documents(debian.read_packages(raw, tick))
    else:
        documents = wikdict.build_documents(wikdict.read_senses(raw, tick))
    counts = {split: len(rows) for split, rows in documents.items()}
    labels = {label for document in documents["train"] for label in document.labels}
    dataset.check_counts({**counts, "labels": len(labels)})
    return write_linked(Path(out), documents, names, **described)


def source_files(dataset: Dataset, raw: Path | str) -> list[Path]:
    """The files in `raw` that the corpus is made from, whatever else lies there; raises DataError
    when they are not there."""
    if dataset.kind == "wordnet":
        return wordnet.wordnet_files(raw)
    if dataset.kind == "debian":
        return debian.debian_files(raw)
    if dataset.kind == "wikdict":
        return wikdict.wikdict_files(raw)
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
    facts = {key: getattr(record, key) for key in PROVENANCE}
    return record.licence, {key: value for key, value in facts.items() if value}
