"""The corpus: documents, labels and which belongs to which, in a folder that is checked when read."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from pydantic import Field

from haste.checksums import Sum, check_file, file_sums, read_description, write_description
from haste.errors import DataError
from haste.files import atomic, read_csr, reading, write_csr
from haste.former_names import renamed_statistics, stored_path
from haste.labels.frequency import count_labels
from haste.paths import SPLITS, CorpusDir
from haste.settings import Int, settings

MADE_BY = "haste corpus"
EVALUATED = ("validation", "test")
"""the splits with reciprocal pairs"""
RARE = 5
"""labels with at most so many training documents count as rare"""
DOCUMENTS = pa.schema([("uid", pa.string()), ("text", pa.string())])
"""of the Parquet files of documents; text is null where there are only sparse features"""
Count = Annotated[Int, Field(ge=0)]
Positive = Annotated[Int, Field(ge=1)]


@settings("statistics")
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
    reciprocal: Mapping[str, float]
    """validation, test: share of positives that are in the matrix of reciprocal pairs"""


@settings("corpus")
class CorpusInfo:
    """corpus.json."""

    dataset: str
    n_labels: Positive
    """L: labels with a training document, the first columns"""
    n_extra: Count
    """E: labels of validation and test documents alone, the last columns"""
    documents: Mapping[str, Positive]
    """by split"""
    points: Mapping[str, Positive]
    """positives by split"""
    propensity_a: float
    propensity_b: float
    opaque_labels: bool
    """no method may use a label's text"""
    max_len: Positive
    """tokens kept of a document where a run does not say otherwise"""
    licence: str
    source: Mapping[str, Any]
    """what was fetched: package, version, file, sha256"""
    statistics: Statistics
    n_features: Count = 0
    """D: columns of the sparse features, 0 where there are none"""
    has_text: bool = True
    """whether documents have a text; where they have not, they have sparse features"""
    filtered: bool = False
    """the pairs of the reciprocal matrices leave the predictions before any metric is taken"""
    digests: Mapping[str, Sum] = field(default_factory=dict)
    """of all files, by name; none in a corpus of before they were written down"""


@dataclass(frozen=True)
class Corpus:
    """A corpus folder; documents and matrices are read, and held to their digests, when asked for."""

    directory: CorpusDir
    info: CorpusInfo

    def check(self, path: Path) -> None:
        """Raise DataError where a file of the corpus is missing or not what was written."""
        check_file(path, self.info.digests, MADE_BY)

    def documents(self, split: str) -> pa.Table:
        """Columns uid and text (string, null without text), one row a document; raises DataError."""
        path = self.directory.documents(split)
        return self._read_parquet(path, ("uid", "text"), self.info.documents[split])

    def text_blocks(self, split: str, size: int) -> Iterator[list[str]]:
        """The documents' texts, so many at once; raises DataError."""
        path = self.directory.documents(split)
        with self._opened(path, ("text",), self.info.documents[split]) as file:
            for block in file.iter_batches(size, columns=["text"]):
                yield [text or "" for text in block.column(0).to_pylist()]

    def texts(self, split: str) -> list[str]:
        """The documents' texts, in the order of the rows; raises DataError when there are none."""
        if not self.info.has_text:
            raise DataError(
                f"{self.directory.root}: {self.info.dataset} has no text, only sparse features. Choose "
                "what needs no text."
            )
        return self.documents(split)["text"].to_pylist()

    @property
    def labels(self) -> pa.Table:
        """Columns uid, name, text (null where labels are opaque), trainable; row = column of the matrices."""
        columns = ("uid", "name", "text", "trainable")
        rows = self.info.n_labels + self.info.n_extra
        return self._read_parquet(self.directory.labels, columns, rows)

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

    def label_frequencies(self, over: str = "train") -> np.ndarray:
        """Documents that have each label: int64 [L + E]; over `train` the last E are 0.

        Over `train_and_test`, as the released code counts, the test set leaks into the head, the groups and the
        propensities; that exists so that the leak's effect can be measured.
        """
        counts = count_labels(self.positives("train"))
        return counts + count_labels(self.positives("test")) if over == "train_and_test" else counts

    def reciprocal(self, split: str) -> sp.csr_matrix:
        """float32 CSR [N, L + E]: the pairs of validation or test that a second evaluation leaves out."""
        return self._read_matrix(stored_path(self.directory.reciprocal(split)), split)

    def features(self, split: str) -> sp.csr_matrix:
        """float32 CSR [N, D]; raises DataError when the corpus has no sparse features."""
        if not self.info.n_features:
            raise DataError(
                f"{self.directory.root}: {self.info.dataset} has no sparse features. Use its text."
            )
        return self._read_matrix(self.directory.features(split), split, self.info.n_features)

    def _read_matrix(self, path: Path, split: str, width: int | None = None) -> sp.csr_matrix:
        """`width`: its columns, L + E where it is not given."""
        self.check(path)
        matrix = read_csr(path, MADE_BY)
        expected = (self.info.documents[split], width or self.info.n_labels + self.info.n_extra)
        if matrix.shape != expected:
            raise DataError(
                f"{path}: has {matrix.shape[0]} rows and {matrix.shape[1]} columns, {self.directory.info} "
                f"says {expected[0]} and {expected[1]}. Make the corpus again."
            )
        return matrix

    def _read_parquet(self, path: Path, columns: tuple[str, ...], expected: int) -> pa.Table:
        with self._opened(path, columns, expected) as file:
            return file.read(columns=list(columns)).select(list(columns))

    @contextlib.contextmanager
    def _opened(
        self, path: Path, columns: tuple[str, ...], expected: int
    ) -> Iterator[pq.ParquetFile]:
        """A Parquet file with so many rows; raises DataError."""
        self.check(path)
        what = f"a Parquet file with the columns {', '.join(columns)}"
        # pages as they come: a file may have all its rows in one group
        with reading(path, what, MADE_BY), pq.ParquetFile(path, pre_buffer=False) as file:
            rows = file.metadata.num_rows
            if rows != expected:
                raise DataError(
                    f"{path}: has {rows} rows, {self.directory.info} says {expected}. Make the corpus again."
                )
            yield file


def load_corpus(directory: Path | str | CorpusDir) -> Corpus:
    """Open a corpus folder; raises DataError when corpus.json or another file is missing or damaged."""
    directory = CorpusDir.of(directory)
    value = read_description(directory.info, MADE_BY)
    with reading(directory.info, "the description of a corpus", MADE_BY):
        info = CorpusInfo(**renamed_statistics(value))
        for counts in (info.documents, info.points):
            if set(counts) != set(SPLITS):
                raise ValueError(f"{counts} is not a count for each split")
    for path in _data_files(directory, info):
        with reading(stored_path(path), "a file of a corpus", MADE_BY):
            pass
    return Corpus(directory, info)


def document_table(
    uids: Sequence[str] | pa.Array, texts: Sequence[str | None] | pa.Array
) -> pa.Table:
    """The table of some of a split's documents."""
    return pa.table({"uid": _strings(uids), "text": _strings(texts)}, schema=DOCUMENTS)


def label_table(
    uids: Sequence[str] | pa.ChunkedArray,
    names: Sequence[str] | pa.ChunkedArray,
    texts: Sequence[str | None] | pa.ChunkedArray,
    n_labels: int,
) -> pa.Table:
    """The table of all labels, the `n_labels` trainable ones first."""
    return pa.table(
        {
            "uid": _strings(uids),
            "name": _strings(names),
            "text": _strings(texts),
            "trainable": pa.array(np.arange(len(uids)) < n_labels),
        }
    )


def write_corpus(
    root: Path | str, documents: Mapping[str, pa.Table], *parts: Any, **described: Any
) -> CorpusInfo:
    """Write a corpus whose documents (by split, see `document_table`) are in memory; the rest as
    `CorpusWriter.finish` takes it."""
    with CorpusWriter(root) as writer:
        for split in SPLITS:
            writer.add(split, documents[split])
        return writer.finish(*parts, **described)


class CorpusWriter:
    """Writes a corpus folder: documents block by block, all the rest at the end.

    corpus.json comes last, and goes first when a folder is written again: one that is cut short
    is not taken for a corpus.
    """

    def __init__(self, root: Path | str) -> None:
        self.directory = CorpusDir(Path(root))
        self._open = contextlib.ExitStack()
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._rows = dict.fromkeys(SPLITS, 0)
        self._words = 0
        self._has_text = True

    def __enter__(self) -> CorpusWriter:
        self.directory.info.unlink(missing_ok=True)
        for split in SPLITS:
            path = self._open.enter_context(atomic(self.directory.documents(split)))
            writer = pq.ParquetWriter(path, DOCUMENTS, compression="zstd")
            self._writers[split] = self._open.enter_context(writer)
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._open.__exit__(*error)

    def add(self, split: str, documents: pa.Table) -> None:
        """Append documents (see `document_table`) as a row group."""
        if not len(documents):
            return
        self._writers[split].write_table(documents)
        self._rows[split] += len(documents)
        if documents["text"].null_count:
            self._has_text = False
        elif split == "train":
            self._words += sum(len(text.split()) for text in documents["text"].to_pylist())

    def finish(
        self,
        positives: Mapping[str, sp.csr_matrix],
        reciprocal: Mapping[str, sp.csr_matrix],
        labels: pa.Table,
        features: Mapping[str, sp.csr_matrix] | None = None,
        **described: Any,
    ) -> CorpusInfo:
        """Write what belongs to the documents added: for each split `positives` [N, L + E] of ones
        and, if there are any, float32 `features` [N, D]; for validation and test `reciprocal`
        [N, L + E] of ones; the table of labels. `described` are the fields of CorpusInfo that these
        do not say.

        Raises DataError when a split has no documents or no labels, or fewer than two labels can be
        trained.
        """
        n_labels = int(np.count_nonzero(labels["trainable"].to_numpy()))
        self._check(positives, n_labels)
        self._open.close()
        for split in SPLITS:
            write_csr(self.directory.positives(split), positives[split])
            if features is not None:
                write_csr(self.directory.features(split), features[split])
        for split in EVALUATED:
            write_csr(self.directory.reciprocal(split), reciprocal[split])
        with atomic(self.directory.labels) as temporary:
            pq.write_table(labels, temporary, compression="zstd")
        info = CorpusInfo(
            n_labels=n_labels,
            n_extra=len(labels) - n_labels,
            documents=dict(self._rows),
            points={split: int(positives[split].nnz) for split in SPLITS},
            statistics=self._statistics(positives, reciprocal, n_labels),
            n_features=0 if features is None else features["train"].shape[1],
            has_text=self._has_text,
            **described,
        )
        sums = file_sums(_data_files(self.directory, info), self.directory.root)
        info = dataclasses.replace(info, digests=sums)
        write_description(self.directory.info, dataclasses.asdict(info))
        return info

    def _check(self, positives: Mapping[str, sp.csr_matrix], n_labels: int) -> None:
        """Raise DataError for what could not be trained on."""
        for split in SPLITS:
            if self._rows[split] == 0:
                raise DataError(
                    f"the {split} split has no documents. Check the source, or give more documents."
                )
            if positives[split].nnz == 0:
                raise DataError(
                    f"the {split} documents have no labels. Check their labels, or give more documents."
                )
        if n_labels < 2:
            raise DataError(
                f"the training documents have {n_labels} different labels; at least two are needed to "
                "classify. Check their labels, or give more documents."
            )

    def _statistics(
        self,
        positives: Mapping[str, sp.csr_matrix],
        reciprocal: Mapping[str, sp.csr_matrix],
        n_labels: int,
    ) -> Statistics:
        train = positives["train"]
        frequencies = count_labels(train)[:n_labels]
        return Statistics(
            labels_per_document=train.nnz / train.shape[0],
            points_per_label=train.nnz / n_labels,
            rare_labels=float((frequencies <= RARE).mean()),
            words_per_document=self._words / train.shape[0],
            seen={s: float((positives[s].indices < n_labels).mean()) for s in EVALUATED},
            reciprocal={
                s: reciprocal[s].multiply(positives[s]).nnz / positives[s].nnz for s in EVALUATED
            },
        )


def _data_files(directory: CorpusDir, info: CorpusInfo) -> Iterator[Path]:
    yield directory.labels
    for split in SPLITS:
        yield directory.documents(split)
        yield directory.positives(split)
        if info.n_features:
            yield directory.features(split)
    for split in EVALUATED:
        yield directory.reciprocal(split)


def _strings(values: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> Any:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(pa.string())
    return pa.array(values, pa.string())
