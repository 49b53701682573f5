"""Predicts labels of new documents with a finished run, or with the folder that one was exported to."""

from __future__ import annotations

from collections.abc import Sequence
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
from haste.data.ragged import Ragged
from haste.data.tokens import encode
from haste.errors import DataError
from haste.files import reading
from haste.labels.order import LabelOrder
from haste.model import restore_model
from haste.paths import CorpusDir, RunDir
from haste.tensor_file import load_tensors

if TYPE_CHECKING:
    import scipy.sparse as sp


class Suggestion(NamedTuple):
    """A predicted label of a text."""

    uid: str
    name: str
    score: float
    """probability of the label, the sigmoid of its logit"""


@dataclass(frozen=True)
class TrainedFiles:
    """Where the files lie that a prediction needs."""

    weights: Path
    model: Path
    """folder of the encoder's configuration and tokenizer"""
    corpus: CorpusDir
    order: Path | None


class Predictor:
    """Scores documents with a trained run."""

    def __init__(self, run: RunDir, device: torch.device, *, verify: bool = False) -> None:
        """Raises DataError when the run is not finished or its files do not fit.

        The weights are the file itself, mapped into memory: on a CPU several processes share it. With
        `verify` all of it is read first and held to its digest.
        """
        self.run = run
        self.config = config = read_run(run.config)
        self.files = TrainedFiles(
            weights=run.model,
            model=_found(config.inputs.model, run.root),
            corpus=CorpusDir(_found(config.inputs.corpus, run.root)),
            order=_found(config.inputs.order, run.root) if config.inputs.order else None,
        )
        tensors, _ = load_tensors(run.model, verify=verify)
        described = read_description(self.files.corpus.info, MADE_BY)
        self.reads_text = bool(described.get("has_text", True))
        self.n_documents = int(described["documents"]["train"])
        self.n_features = int(described.get("n_features", 0))
        path = self.files.corpus.labels
        with reading(path, "the labels of a corpus", MADE_BY), pq.ParquetFile(path) as file:
            labels = file.read(columns=["uid", "name"])
            # not lists: of millions only a few are ever looked at
            self.uids: pa.ChunkedArray = labels["uid"]
            self.names: pa.ChunkedArray = labels["name"]
        order = LabelOrder.load(self.files.order) if self.files.order else None
        self.model = restore_model(
            config, self.files.model, order or LabelOrder.identity(described["n_labels"]), tensors, device, run.model
        )  # fmt: skip
        path = self.files.model / "tokenizer.json"
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
        fewer; documents are texts or features [N, D], as those of training were."""
        if k < 1:
            raise DataError(f"k: {k} labels asked for; ask for at least 1.")
        ids, scores = self.model.predict(self._tokens(documents), k)
        with np.errstate(over="ignore"):
            return ids, 1 / (1 + np.exp(-scores))

    def __call__(self, texts: Sequence[str], k: int) -> list[list[Suggestion]]:
        """The k best labels of each text, best first; none for an empty text."""
        suggestions: list[list[Suggestion]] = [[] for _ in texts]
        rows = [row for row, text in enumerate(texts) if text.strip()]
        k = min(k, self.model.order.n_labels)
        ids, probabilities = self.predict([texts[row] for row in rows], k)
        there = ids >= 0
        chosen = ids[there]
        # pa.array imports pandas, which takes a second
        labels = pa.Int32Array.from_buffers(
            pa.int32(), len(chosen), [None, pa.py_buffer(chosen.astype(np.int32))]
        )
        uids, names = (column.take(labels).to_pylist() for column in (self.uids, self.names))
        found = map(Suggestion, uids, names, probabilities[there].tolist())
        for row, count in zip(rows, there.sum(1).tolist(), strict=True):
            suggestions[row] = list(islice(found, count))
        return suggestions

    def _tokens(self, documents: Sequence[str] | sp.csr_matrix) -> Ragged:
        given = hasattr(documents, "indptr")
        if given == self.reads_text:
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


def suggestion_table(texts: Sequence[str], found: Sequence[Sequence[Suggestion]]) -> pa.Table:
    """Columns text, and lists `labels` (uids), `names` and `scores`, best first, a row a text."""
    return pa.table(
        {
            "text": pa.array(texts, pa.string()),
            "labels": pa.array([[s.uid for s in row] for row in found], pa.list_(pa.string())),
            "names": pa.array([[s.name for s in row] for row in found], pa.list_(pa.string())),
            "scores": pa.array([[s.score for s in row] for row in found], pa.list_(pa.float32())),
        }
    )


def _found(path: str, run: Path) -> Path:
    """A path of a run's configuration: beside the run or in a folder above it, else in the working folder.

    So a run is read from any working folder, and a folder that has all it needs wherever it was moved.
    """
    above = run.resolve()
    for folder in (above, *above.parents):
        if (folder / path).exists():
            return folder / path
    return Path(path)
