"""An estimator for arrays in memory: fit, predict, evaluate; the runs of a grid, in a folder of its own."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from haste.config import RunConfig
from haste.data.arrays import (
    Documents,
    Labels,
    NamedLabels,
    as_documents,
    is_dense,
    write_arrays,
)
from haste.data.corpus import Corpus, load_corpus
from haste.data.labelspace import LabelSpace
from haste.data.tokens import tokenize
from haste.device import choose_device
from haste.encoders.features import encode_training_documents
from haste.encoders.words import write_word_model
from haste.errors import ConfigError, DataError
from haste.files import read_json, write_json
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
from haste.labels.embed import label_embeddings
from haste.labels.frequency import count_labels
from haste.labels.grouping import order_labels
from haste.labels.spec import OrderSpec
from haste.metrics.metrics import MAX_RANK, evaluate
from haste.metrics.propensity import inverse_propensity
from haste.paths import RunDir, TokenDir
from haste.portable import save_pretrained, train_frequencies
from haste.predict import Predictor
from haste.runs import run_dir

log = logging.getLogger(__name__)

DATASET = "arrays"
BY_EMBEDDINGS = ("semantic", "balanced")
"""groupings that need label embeddings"""
FEW_LABELS = 64
"""with fewer a dense layer is trained, whatever the method"""


class HasteClassifier:
    """Extreme multi-label classification of texts, sparse features or dense embeddings.

    Y is a matrix [N, L], or a list of each document's labels, by name or number; some documents are held out
    for validation. Texts are read by `encoder["model"]`, a folder with a pretrained one, or as a bag of
    their own words; dense embeddings go to the output layer as they are.
    """

    def __init__(
        self,
        method: str = "haste-plus",
        *,
        seed: int = 0,
        device: str = "auto",
        features: int = 1024,
        folder: Path | str | None = None,
        encoder: Mapping[str, Any] | None = None,
        layer: Mapping[str, Any] | None = None,
        rewire: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        """`method`: a name of the preset table. The sections are those of a grid's configuration, and what
        is not given has its default. `features`: H of an encoder that is not pretrained. `folder`: for data
        and model, a temporary one if not given."""
        self.method = method
        self.seed = seed
        self.device = device
        self.features = features
        self.folder = folder
        self.sections = {
            "encoder": dict(encoder or {}),
            "layer": dict(layer or {}),
            "rewire": dict(rewire or {}),
            "training": {"device": device, **(training or {})},
        }
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._predictor: Predictor | None = None
        self._names: list[str | int] = []
        self._train_frequency = np.zeros(0, np.int64)
        self._n_documents = 0

    def fit(self, documents: Documents, labels: Labels) -> HasteClassifier:
        """Train on texts or features [N] or [N, D] and their labels; returns itself.

        Raises ConfigError or DataError for settings, documents or labels that will not do.
        """
        from haste.training.run import train_and_evaluate

        given, named = as_documents(documents), NamedLabels.of(labels)
        root = self._root()
        sections = self._sections(documents, given, root)
        method = self.method
        if len(named.names) < FEW_LABELS:
            method = "dense"
            log.info(
                "%d labels: too few for a sparse layer; training a dense one", len(named.names)
            )
        grid = GridConfig.from_dict(
            {
                "name": "fit",
                "datasets": [DATASET],
                "methods": [method],
                "seeds": [self.seed],
                "data_dir": str(root / "data"),
                "results_dir": str(root),
                **sections,
                # what is given counts, also where the method's preset says otherwise
                "overrides": {method: sections},
            }
        )
        key = RunKey(DATASET, method, DEFAULT_VARIANT, self.seed)
        config = grid.resolve(key)
        _, space = write_arrays(
            Path(config.inputs.corpus), given, named, max_len=config.encoder.max_len
        )
        corpus = load_corpus(config.inputs.corpus)
        tokenize(corpus, config.inputs.model, config.encoder.max_len, config.inputs.tokens)
        _write_orders(config, corpus)
        run = run_dir(grid, key)
        train_and_evaluate(config, run, force=True)
        self._predictor = Predictor(run, choose_device(self.device))
        self._names = [named.names[label] for label in space.ids]
        self._train_frequency = count_labels(corpus.positives("train"))
        self._n_documents = self._predictor.n_documents
        return self

    def predict(self, documents: Documents, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The k best labels [N, k], as the user calls them, and their probabilities float32 [N, k], best first.

        Where there are fewer than k labels, the rest is None, or -1 for numbers, with probability 0.
        """
        ids, scores = self._fitted().predict(as_documents(documents), k)
        numbers = all(isinstance(name, int) for name in self._names)
        names = np.array([*self._names, -1 if numbers else None], np.int64 if numbers else object)
        return names[ids], scores

    def evaluate(self, documents: Documents, labels: Labels) -> dict[str, float]:
        """P@k, PSP@k, nDCG@k, PSnDCG@k and R@k in percent; labels that training has not seen count in the
        truth."""
        ids, scores = self._fitted().predict(as_documents(documents), MAX_RANK)
        named = NamedLabels.of(labels, self._names)
        n_labels = len(named.names)
        own_order = np.arange(n_labels, dtype=np.int32)
        truth = LabelSpace(own_order, n_labels, own_order).positives(named.rows)
        frequency = np.zeros(n_labels, np.int64)
        frequency[: len(self._train_frequency)] = self._train_frequency
        propensity = inverse_propensity(frequency, self._n_documents, 0.55, 1.5)
        return evaluate(ids, scores, truth, propensity, frequency)["metrics"]

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the trained classifier to a new folder that needs nothing else, with a model card."""
        numbered = all(isinstance(name, int) for name in self._names)
        save_pretrained(self._fitted(), Path(folder), numbered=numbered)

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str = "auto") -> HasteClassifier:
        """Read what `save_pretrained` wrote, or any finished run of the pipeline, from its folder."""
        predictor = Predictor(RunDir(Path(folder)), choose_device(device))
        model = cls(predictor.config.method, seed=predictor.config.seed, device=device)
        model._predictor = predictor
        described = Path(folder) / "config.json"
        numbered = described.is_file() and read_json(described).get("numbered_labels", False)
        model._names = [int(name) if numbered else name for name in predictor.names]
        model._train_frequency = train_frequencies(predictor.files.corpus)
        model._n_documents = predictor.n_documents
        return model

    def _fitted(self) -> Predictor:
        if self._predictor is None:
            raise DataError("this classifier has not been trained; call fit first.")
        return self._predictor

    def _root(self) -> Path:
        """The folder of data and model, empty."""
        if self.folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="haste-")
            return Path(self._temporary.name)
        root = Path(self.folder).expanduser().resolve()
        if root.exists() and any(root.iterdir()):
            raise ConfigError(f"folder: {root} has files in it; give a new one, or remove it.")
        root.mkdir(parents=True, exist_ok=True)
        return root

    def _sections(self, documents: Documents, given: Any, root: Path) -> dict[str, dict[str, Any]]:
        """The sections of the grid, with the encoder that suits the documents."""
        encoder = dict(self.sections["encoder"])
        made = root / "words"
        if is_dense(documents):
            encoder.setdefault("kind", "none")
        if encoder.get("model") is None:
            encoder["model"] = str(made)
            if isinstance(given, list):
                encoder.setdefault("max_len", 256)
                write_word_model(given, made, self.features, self.seed)
            else:
                write_json(made / "config.json", {"hidden_size": self.features})
        return {**self.sections, "encoder": encoder}


def _write_orders(config: RunConfig, corpus: Corpus) -> None:
    """The label orders that a run reads."""
    inputs, n_labels = config.inputs, corpus.info.n_labels
    specs = {
        inputs.order: OrderSpec.of_layer(config.layer, config.encoder, config.seed),
        inputs.clusters: OrderSpec.of_clusters(config.auxiliary, config.encoder, config.seed),
    }
    positives = corpus.positives("train")[:, :n_labels]
    embeddings = None
    for path, spec in specs.items():
        if path is None:
            continue
        if spec.grouping in BY_EMBEDDINGS and embeddings is None:
            embeddings = label_embeddings(
                encode_training_documents(
                    config.encoder.kind,
                    Path(inputs.model),
                    TokenDir(Path(inputs.tokens)),
                    corpus.directory,
                    pooling=config.encoder.pooling,
                ),
                positives,
            )
        order_labels(spec, embeddings, count_labels(positives)).save(path)
