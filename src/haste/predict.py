"""Predicts labels of new documents with a finished run, or with the folder that one was exported to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer

from haste.checksums import read_description
from haste.config import read_run
from haste.data.corpus import MADE_BY
from haste.data.ragged import Ragged, offsets_of
from haste.data.tokens import encode
from haste.errors import DataError
from haste.files import reading
from haste.labels.order import LabelOrder
from haste.model import restore_model
from haste.paths import CorpusDir, RunDir
from haste.settings import check_integer
from haste.tensor_file import load_tensors

if TYPE_CHECKING:
    import scipy.sparse as sp


class Suggestion(NamedTuple):
    """A predicted label of a text."""

    uid: str
    name: str
    score: float
    """probability of the label, the sigmoid of its logit"""


SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("names", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
    ]
)
"""of the table of predictions, a row a text; labels are uids, best first"""


@dataclass(frozen=True)
class Suggestions:
    """The predicted labels of N texts one after the other, best first, as columns."""

    offsets: np.ndarray
    """int64 [N + 1]: those of text i are [offsets[i], offsets[i + 1])"""
    uids: pa.Array
    names: pa.Array
    scores: np.ndarray
    """float32: probabilities"""

    def __iter__(self) -> Iterator[list[Suggestion]]:
        suggestions = map(
            Suggestion, self.uids.to_pylist(), self.names.to_pylist(), self.scores.tolist()
        )
        for count in np.diff(self.offsets).tolist():
            yield list(islice(suggestions, count))

    def table(self, texts: Sequence[str]) -> pa.Table:
        """With the texts, of `SCHEMA`."""
        offsets = _arrow(self.offsets.astype(np.int32), pa.int32())
        encoded = [text.encode() for text in texts]
        bounds = offsets_of([len(text) for text in encoded]).astype(np.int32)
        data = pa.py_buffer(b"".join(encoded))
        columns = [
            pa.StringArray.from_buffers(len(encoded), pa.py_buffer(bounds), data),
            *(
                pa.ListArray.from_arrays(offsets, values)
                for values in (self.uids, self.names, _arrow(self.scores, pa.float32()))
            ),
        ]
        return pa.Table.from_arrays(columns, schema=SCHEMA)


class Predictor:
    """Scores documents with a trained run."""

    def __init__(self, run: RunDir, device: torch.device, *, verify: bool = False) -> None:
        """Raises DataError when there is no run, it is not finished or its files do not fit.

        The weights are the file itself, mapped into memory: on a CPU several processes share it. With
        `verify` all of it is read first and held to its digest.
        """
        self.run = run
        if not run.config.is_file():
            raise DataError(
                f"{run.root}: no trained model, for it has no {run.config.name}. Give the folder of a finished "
                "run, or one that haste export or save_pretrained wrote."
            )
        self.config = config = read_run(run.config)
        inputs = config.inputs
        # of the encoder's configuration and tokenizer
        self.model_folder = _resolved(inputs.model, run.root)
        self.corpus = CorpusDir(_resolved(inputs.corpus, run.root))
        self.order = _resolved(inputs.order, run.root) if inputs.order else None
        tensors, _ = load_tensors(run.model, verify=verify)
        described = read_description(self.corpus.info, MADE_BY)
        self.reads_text = bool(described.get("has_text", True))
        self.n_documents = int(described["documents"]["train"])
        self.propensity = (float(described["propensity_a"]), float(described["propensity_b"]))
        self.n_features = int(described.get("n_features", 0))
        path = self.corpus.labels
        with reading(path, "the labels of a corpus", MADE_BY), pq.ParquetFile(path) as file:
            labels = file.read(columns=["uid", "name"])
            # not lists: of millions only a few are ever looked at
            self.uids: pa.ChunkedArray = labels["uid"]
            self.names: pa.ChunkedArray = labels["name"]
        order = LabelOrder.load(self.order) if self.order else None
        self.model = restore_model(
            config, self.model_folder, order or LabelOrder.identity(described["n_labels"]), tensors, device, run.model
        )  # fmt: skip
        path = self.model_folder / "tokenizer.json"
        self.tokenizer: Tokenizer | None = None
        if self.reads_text:
            with reading(path, "a tokenizer", "haste fetch"):
                self.tokenizer = Tokenizer.from_file(str(path))
            self.tokenizer.no_padding()
            self.tokenizer.enable_truncation(config.encoder.max_len)

    def predict(
        self, documents: Sequence[str] | sp.csr_matrix, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Label ids int32 [N, k] and probabilities float32 [N, k], best first, -1 and 0 where there are
        fewer; documents are texts or features [N, D], as those of training were.

        Raises ConfigError for a k that is no whole number from 1, DataError for documents of another kind.
        """
        ids, scores = self.model.predict(self._tokens(documents), check_integer("k", k, 1))
        with np.errstate(over="ignore"):
            return ids, 1 / (1 + np.exp(-scores))

    def __call__(self, texts: Sequence[str], k: int) -> Suggestions:
        """The k best labels of each text, best first; none for an empty text."""
        rows = [row for row, text in enumerate(texts) if text.strip()]
        k = min(k, self.model.order.n_labels)
        ids, probabilities = self.predict([texts[row] for row in rows], k)
        there = ids >= 0
        counts = np.zeros(len(texts), np.int64)
        counts[rows] = there.sum(1)
        labels = _arrow(ids[there].astype(np.int32), pa.int32())
        uids, names = (column.take(labels).combine_chunks() for column in (self.uids, self.names))
        return Suggestions(offsets_of(counts), uids, names, probabilities[there])

    def _tokens(self, documents: Sequence[str] | sp.csr_matrix) -> Ragged:
        are_features = hasattr(documents, "indptr")
        if are_features == self.reads_text:
            was, now = ("texts", "features")[:: 1 if self.reads_text else -1]
            raise DataError(f"{self.run.root}: was trained on {was}, and cannot read {now}.")
        if self.tokenizer is not None:
            return encode(self.tokenizer, documents)
        features: sp.csr_matrix = documents
        if features.shape[1] != self.n_features:
            raise DataError(
                f"{self.run.root}: was trained on {self.n_features} features, got {features.shape[1]}."
            )
        offsets = features.indptr.astype(np.int64)
        return Ragged(features.indices.astype(np.int32), offsets, features.data)


def _arrow(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """The values as Arrow's, of the same dtype; pa.array imports pandas, which takes a second."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _resolved(path: str, run: Path) -> Path:
    """A path of a run's configuration: beside the run or in a folder above it, else in the working folder.

    So a run is read from any working folder, and a folder that has all it needs wherever it was moved.
    """
    above = run.resolve()
    for folder in (above, *above.parents):
        if (folder / path).exists():
            return folder / path
    return Path(path)
