"""The corpus: documents, labels and which belongs to which, in a folder that is checked when read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from haste.errors import DataError
from haste.files import atomic, read_csr, read_json, reading, write_csr, write_json
from haste.labels.frequency import label_frequencies
from haste.paths import SPLITS, CorpusDir

EVALUATED = ("validation", "test")
"""the splits with mirrored pairs"""
RARE = 5
"""labels with at most so many training documents count as rare"""


@dataclass(frozen=True)
class Statistics:
    """Facts of a corpus for the `datasets` table; all but the last two over training documents."""

    labels_per_document: float
    points_per_label: float
    """training documents a label, over the L labels that have one"""
    rare_labels: float
    """share of the L labels with at most 5 training documents"""
    words_per_document: float
    """separated by white space"""
    seen: Mapping[str, float]
    """validation, test: share of positives whose label has a training document"""
    mirrored: Mapping[str, float]
    """validation, test: share of positives (i, j) whose mirror (j, i) is a training positive"""


@dataclass(frozen=True)
class CorpusInfo:
    """corpus.json."""

    dataset: str
    n_labels: int
    """L: labels with a training document, the first columns"""
    n_extra: int
    """E: labels of validation and test documents alone, the last columns"""
    documents: Mapping[str, int]
    """by split"""
    points: Mapping[str, int]
    """positives by split"""
    propensity_a: float
    propensity_b: float
    opaque_labels: bool
    """no method may use a label's text"""
    max_len: int
    """tokens kept of a document where a run does not say otherwise"""
    licence: str
    source: Mapping[str, Any]
    """what was fetched: package, version, file, sha256"""
    statistics: Statistics


@dataclass(frozen=True)
class Corpus:
    """A corpus folder; documents and matrices are read, and checked, when asked for."""

    directory: CorpusDir
    info: CorpusInfo

    def documents(self, split: str) -> pa.Table:
        """Columns uid and text (string), one row a document; raises DataError."""
        table = _read_parquet(self.directory.documents(split), ("uid", "text"))
        return self._with_rows(table, self.info.documents[split], self.directory.documents(split))

    def texts(self, split: str) -> list[str]:
        """The documents' texts, in the order of the rows."""
        return self.documents(split)["text"].to_pylist()

    @property
    def labels(self) -> pa.Table:
        """Columns uid, name, text (null where labels are opaque), trainable; row = column of the matrices."""
        path = self.directory.labels
        table = _read_parquet(path, ("uid", "name", "text", "trainable"))
        return self._with_rows(table, self.info.n_labels + self.info.n_extra, path)

    def positives(self, split: str) -> sp.csr_matrix:
        """float32 CSR [N, L + E] of ones; raises DataError when it does not fit the corpus."""
        path = self.directory.positives(split)
        matrix = self._read_matrix(path, split)
        if split == "train" and matrix.nnz and matrix.indices.max() >= self.info.n_labels:
            raise DataError(
                f"{path}: a training document has label {matrix.indices.max()}, but only the first "
                f"{self.info.n_labels} are trainable. Make the corpus again."
            )
        return matrix

    def mirrored(self, split: str) -> sp.csr_matrix:
        """float32 CSR [N, L + E]: the positives (i, j) of validation or test whose mirror is trained on."""
        return self._read_matrix(self.directory.mirrored(split), split)

    def _read_matrix(self, path: Path, split: str) -> sp.csr_matrix:
        matrix = read_csr(path)
        expected = (self.info.documents[split], self.info.n_labels + self.info.n_extra)
        if matrix.shape != expected:
            raise DataError(
                f"{path}: has {matrix.shape[0]} rows and {matrix.shape[1]} columns, {self.directory.info} "
                f"says {expected[0]} and {expected[1]}. Make the corpus again."
            )
        return matrix

    def _with_rows(self, table: pa.Table, expected: int, path: Path) -> pa.Table:
        if len(table) != expected:
            raise DataError(
                f"{path}: has {len(table)} rows, {self.directory.info} says {expected}. "
                "Make the corpus again."
            )
        return table


def load_corpus(directory: Path | str | CorpusDir) -> Corpus:
    """Open a corpus folder; raises DataError when corpus.json or another file is missing or damaged."""
    if not isinstance(directory, CorpusDir):
        directory = CorpusDir(Path(directory))
    value = read_json(directory.info)
    with reading(directory.info, "the description of a corpus"):
        info = CorpusInfo(**{**value, "statistics": Statistics(**value["statistics"])})
    for path in _data_files(directory):
        with reading(path, "a file of a corpus"):
            pass
    return Corpus(directory, info)


def require_label_text(corpus: Corpus, purpose: str) -> None:
    """Raise DataError when `purpose` (such as "label embeddings") wants the text of opaque labels."""
    if corpus.info.opaque_labels:
        raise DataError(
            f"{purpose}: the labels of {corpus.info.dataset} are opaque ids; their text would give the answer "
            "away and must not be used. Choose an option that needs training documents only."
        )


def document_table(uids: Sequence[str], texts: Sequence[str]) -> pa.Table:
    """The table of a split's documents."""
    return pa.table({"uid": pa.array(uids, pa.string()), "text": pa.array(texts, pa.string())})


def label_table(
    uids: Sequence[str], names: Sequence[str], texts: Sequence[str | None], n_labels: int
) -> pa.Table:
    """The table of all labels, the `n_labels` trainable ones first."""
    return pa.table(
        {
            "uid": pa.array(uids, pa.string()),
            "name": pa.array(names, pa.string()),
            "text": pa.array(texts, pa.string()),
            "trainable": pa.array(np.arange(len(uids)) < n_labels),
        }
    )


@dataclass(frozen=True)
class CorpusContent:
    """What a reader of a format hands over to be written."""

    documents: Mapping[str, pa.Table]
    """by split, see `document_table`"""
    positives: Mapping[str, sp.csr_matrix]
    """by split: [N, L + E] of ones"""
    mirrored: Mapping[str, sp.csr_matrix]
    """validation, test: [N, L + E] of ones"""
    labels: pa.Table
    """see `label_table`"""

    @property
    def n_labels(self) -> int:
        """L, the labels with a training document."""
        return int(np.count_nonzero(self.labels["trainable"].to_numpy()))


def write_corpus(root: Path | str, content: CorpusContent, **described: Any) -> CorpusInfo:
    """Write a corpus folder; `described` are the fields of CorpusInfo that `content` does not say.

    corpus.json comes last, and goes first when a folder is written again: one that is cut short
    is not taken for a corpus. Raises DataError when a split is empty, fewer than two labels can be
    trained, or tables and matrices do not fit together.
    """
    check_content(content)
    directory = CorpusDir(Path(root))
    directory.info.unlink(missing_ok=True)
    for split in SPLITS:
        _write_parquet(directory.documents(split), content.documents[split])
        write_csr(directory.positives(split), content.positives[split])
    for split in EVALUATED:
        write_csr(directory.mirrored(split), content.mirrored[split])
    _write_parquet(directory.labels, content.labels)
    info = CorpusInfo(
        n_labels=content.n_labels,
        n_extra=len(content.labels) - content.n_labels,
        documents={split: len(content.documents[split]) for split in SPLITS},
        points={split: int(content.positives[split].nnz) for split in SPLITS},
        statistics=_statistics(content, label_frequencies(directory)[: content.n_labels]),
        **described,
    )
    write_json(directory.info, dataclasses.asdict(info))
    return info


def check_content(content: CorpusContent) -> None:
    """Raise DataError for what could not be trained on or does not fit together."""
    width = len(content.labels)
    for split in SPLITS:
        rows = len(content.documents[split])
        if rows == 0:
            raise DataError(
                f"the {split} split has no documents. Check the source, or choose a larger root."
            )
        if content.positives[split].nnz == 0:
            raise DataError(f"the {split} documents have no labels. Check the source.")
        matrices = {"label": content.positives[split]}
        if split in EVALUATED:
            matrices["mirrored"] = content.mirrored[split]
        for what, matrix in matrices.items():
            if matrix.shape != (rows, width):
                raise DataError(
                    f"the {what} matrix of {split} is {matrix.shape[0]} x {matrix.shape[1]}; there are "
                    f"{rows} documents and {width} labels."
                )
    n_labels = content.n_labels
    if n_labels < 2:
        raise DataError(
            f"the training documents have {n_labels} different labels; at least two are needed to "
            "classify. Check the source, or choose a larger root."
        )
    if not content.labels["trainable"].to_numpy()[:n_labels].all():
        raise DataError("labels with a training document must come before those without.")
    trained = np.zeros(width, dtype=bool)
    trained[content.positives["train"].indices] = True
    if (trained != (np.arange(width) < n_labels)).any():
        raise DataError("`trainable` disagrees with the labels that the training documents have.")


def _statistics(content: CorpusContent, frequencies: np.ndarray) -> Statistics:
    train = content.positives["train"]
    words = [len(text.split()) for text in content.documents["train"]["text"].to_pylist()]
    seen = {s: float((content.positives[s].indices < len(frequencies)).mean()) for s in EVALUATED}
    return Statistics(
        labels_per_document=train.nnz / train.shape[0],
        points_per_label=train.nnz / len(frequencies),
        rare_labels=float((frequencies <= RARE).mean()),
        words_per_document=float(np.mean(words)),
        seen=seen,
        mirrored={s: content.mirrored[s].nnz / content.positives[s].nnz for s in EVALUATED},
    )


def _data_files(directory: CorpusDir) -> Iterator[Path]:
    yield directory.labels
    for split in SPLITS:
        yield directory.documents(split)
        yield directory.positives(split)
    for split in EVALUATED:
        yield directory.mirrored(split)


def _write_parquet(path: Path, table: pa.Table) -> None:
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _read_parquet(path: Path, columns: tuple[str, ...]) -> pa.Table:
    with reading(path, f"a Parquet file with the columns {', '.join(columns)}"):
        return pq.read_table(path).select(list(columns))
