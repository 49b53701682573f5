"""Predicts labels of new texts with a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from haste.config import read_run
from haste.data.ragged import Ragged
from haste.errors import DataError
from haste.files import reading
from haste.inputs import RunInputs
from haste.model import build_model
from haste.paths import RunDir


@dataclass(frozen=True)
class Suggestion:
    """A predicted label of a text."""

    uid: str
    name: str
    score: float
    """probability of the label, the sigmoid of its logit"""


class Predictor:
    """Scores texts with a trained run."""

    def __init__(self, run: RunDir, device: torch.device) -> None:
        """Raises DataError when the run is not finished or its files do not fit."""
        config = read_run(run.config)
        inputs = RunInputs.load(config)
        self.model = build_model(config, inputs, device)
        self.model.load(run.model)
        path = Path(config.inputs.model) / "tokenizer.json"
        with reading(path, "a tokenizer", "haste fetch"):
            self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(config.encoder.max_len)
        corpus = inputs.corpus
        if not corpus.info.has_text:
            raise DataError(
                f"{run.root}: was trained on sparse features of {corpus.info.dataset}, and cannot read texts."
            )
        labels = corpus.labels
        self.uids: list[str] = labels["uid"].to_pylist()
        self.names: list[str] = labels["name"].to_pylist()

    def __call__(self, texts: Sequence[str], k: int) -> list[list[Suggestion]]:
        """The k best labels of each text, best first; none for an empty text."""
        if k < 1:
            raise DataError(f"k: {k} labels asked for; ask for at least 1.")
        suggestions: list[list[Suggestion]] = [[] for _ in texts]
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if not rows:
            return suggestions
        k = min(k, self.model.order.n_labels)
        ids, scores = self.model.predict(self._tokens([texts[row] for row in rows]), k)
        with np.errstate(over="ignore"):
            probabilities = 1 / (1 + np.exp(-scores))
        for row, labels, values in zip(rows, ids, probabilities, strict=True):
            suggestions[row] = [
                Suggestion(self.uids[label], self.names[label], float(value))
                for label, value in zip(labels, values, strict=True)
                if label >= 0
            ]
        return suggestions

    def _tokens(self, texts: Sequence[str]) -> Ragged:
        encoded = self.tokenizer.encode_batch(list(texts))
        return Ragged.of([np.asarray(item.ids, np.int32) for item in encoded])
