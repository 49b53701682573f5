"""An estimator for arrays in memory: fit, predict, evaluate; the runs of a grid, in a folder of its own."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.config import EncoderConfig
from haste.data.arrays import (
    TRIAL_VALIDATION,
    VALIDATION,
    Documents,
    Labels,
    NamedLabels,
    as_documents,
    is_dense,
    paired,
    write_arrays,
)
from haste.data.labelspace import LabelSpace
from haste.device import choose_device
from haste.errors import ConfigError, DataError
from haste.files import is_occupied, read_json
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey, laid_over
from haste.metrics.metrics import MAX_RANK, evaluate
from haste.metrics.propensity import inverse_propensity
from haste.paths import CorpusDir, GridLayout, RunDir
from haste.portable import save_pretrained, train_frequencies
from haste.predict import Predictor
from haste.prepare import own_encoder, prepare
from haste.presets import trained_method
from haste.runs import run_dir
from haste.search import MOST_TRIALS, Search, Trial
from haste.settings import check_integer, parse
from haste.tuning import Delta

log = logging.getLogger(__name__)

DATASET = "arrays"
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
        and model, a temporary one if not given. Raises ConfigError for a key that there is not, or a value that
        it cannot have."""
        self.method = method
        self.seed = check_integer("seed", seed, 0)
        choose_device(device)
        self.device = device
        self.features = check_integer("features", features, 1)
        self.folder = folder
        sections: dict[str, Any] = {
            "encoder": encoder,
            "layer": layer,
            "rewire": rewire,
            "training": training,
        }
        parse(Delta, {name: section or {} for name, section in sections.items()}, "config")  # type: ignore[type-abstract]  # made when run
        self.sections = {name: dict(section or {}) for name, section in sections.items()}
        self.sections["training"].setdefault("device", device)
        self.trials: list[Trial] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._predictor: Predictor | None = None
        self._names: list[str | int] = []
        self._train_frequency = np.zeros(0, np.int64)

    def fit(self, documents: Documents, labels: Labels) -> HasteClassifier:
        """Train on texts or features [N] or [N, D] and their labels; returns itself.

        Raises ConfigError or DataError for settings, documents or labels that will not do.
        """
        from haste.training.run import train_and_evaluate

        checked, named = paired(documents, labels)
        temporary = None
        if self.folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="haste-")
            root = Path(temporary.name)
        else:
            root = _empty_folder(self.folder)
        settings, space = self._write(documents, checked, named, root, VALIDATION)
        grid = GridConfig.from_dict(settings)
        (method,) = grid.methods
        key = RunKey(DATASET, method, DEFAULT_VARIANT, self.seed)
        config = grid.resolve(key)
        prepare(config)
        run = run_dir(grid, key)
        train_and_evaluate(config, run, force=True)
        self._predictor = Predictor(run, choose_device(self.device))
        # the folder of a former model goes only now, when there is another one
        self._temporary = temporary
        self._names = [named.names[label] for label in space.ids]
        self._train_frequency = train_frequencies(CorpusDir(Path(config.inputs.corpus)))
        return self

    def tune(
        self, documents: Documents, labels: Labels, minutes: float = 5.0, trials: int = MOST_TRIALS
    ) -> HasteClassifier:
        """Search for settings, see `haste.search.Search`, for so many minutes, then `fit` with the best.

        One document in ten, at most 2,000, is held out to compare the trials, which stand in `trials` afterwards,
        and the settings in `sections`. Raises what `fit` raises.
        """
        if self.folder is not None:
            _empty_folder(self.folder)
        checked, named = paired(documents, labels)
        with tempfile.TemporaryDirectory(prefix="haste-") as folder:
            settings, _ = self._write(documents, checked, named, Path(folder), TRIAL_VALIDATION)
            search = Search(settings)
            search.run(minutes, trials)
        self.trials = search.trials
        self.sections = laid_over(self.sections, search.best_delta)
        return self.fit(documents, labels)

    def predict(self, documents: Documents, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The k best labels [N, k], as the user calls them, and their probabilities float32 [N, k], best first.

        Where there are fewer than k labels, the rest is None, or -1 for numbers, with probability 0. Raises
        ConfigError for a k that is no whole number from 1, DataError for documents of another kind than in training.
        """
        ids, scores = self._fitted().predict(as_documents(documents), k)
        numbers = all(isinstance(name, int) for name in self._names)
        none = -1 if numbers else None
        names = np.empty(ids.size, np.int64 if numbers else object)
        names[:] = [self._names[label] if label >= 0 else none for label in ids.ravel().tolist()]
        return names.reshape(ids.shape), scores

    def evaluate(self, documents: Documents, labels: Labels) -> dict[str, float]:
        """P@k, PSP@k, nDCG@k, PSnDCG@k and R@k in percent; labels that training has not seen count in the
        truth. The constants of the propensities are those of the corpus it was trained on. Raises DataError for
        documents or labels that will not do."""
        predictor = self._fitted()
        checked, named = paired(documents, labels, self._names)
        ids, scores = predictor.predict(checked, MAX_RANK)
        n_labels = len(named.names)
        own_order = np.arange(n_labels, dtype=np.int32)
        truth = LabelSpace(own_order, n_labels, own_order).positives(named.rows)
        frequency = np.zeros(n_labels, np.int64)
        frequency[: len(self._train_frequency)] = self._train_frequency
        weights = inverse_propensity(frequency, predictor.n_documents, *predictor.propensity)
        return evaluate(ids, scores, truth, weights, frequency)["metrics"]

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the trained classifier to a new folder that needs nothing else, with a model card."""
        numbered = all(isinstance(name, int) for name in self._names)
        save_pretrained(self._fitted(), Path(folder), numbered=numbered)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, device: str = "auto", *, verify: bool = False
    ) -> HasteClassifier:
        """Read what `save_pretrained` wrote, or any finished run of the pipeline, from its folder.

        Weights are mapped into memory; with `verify` they are read and held to their digest first.
        """
        predictor = Predictor(RunDir(Path(folder)), choose_device(device), verify=verify)
        model = cls(predictor.config.method, seed=predictor.config.seed, device=device)
        model._predictor = predictor
        described = Path(folder) / "config.json"
        numbered = described.is_file() and read_json(described).get("numbered_labels", False)
        model._names = [int(name) if numbered else name for name in predictor.names.to_pylist()]
        model._train_frequency = train_frequencies(predictor.corpus)
        return model

    def _fitted(self) -> Predictor:
        if self._predictor is None:
            raise DataError("this classifier has not been trained; call fit first.")
        return self._predictor

    def _write(
        self,
        documents: Documents,
        checked: list[str] | sp.csr_matrix,
        named: NamedLabels,
        root: Path,
        validation: float,
    ) -> tuple[dict[str, Any], LabelSpace]:
        """The corpus, with a share of `validation` documents, and the model in `root`; returns the settings of a
        grid of one run, and the labels' places."""
        method = trained_method(self.method).name
        if len(named.names) < FEW_LABELS:
            method = "dense"
            log.info(
                "%d labels: too few for a sparse layer; training a dense one", len(named.names)
            )
        encoder = own_encoder(
            self.sections["encoder"],
            checked if isinstance(checked, list) else None,
            root / "words",
            dense=is_dense(documents),
            size=self.features,
            seed=self.seed,
        )
        layout = GridLayout(root / "data", root, "fit")
        max_len = encoder.get("max_len", EncoderConfig().max_len)
        _, space = write_arrays(layout.corpus(DATASET).root, checked, named, max_len, validation)
        sections = {**self.sections, "encoder": encoder}
        settings = {
            "name": layout.grid,
            "datasets": [DATASET],
            "methods": [method],
            "seeds": [self.seed],
            "data_dir": str(layout.data_dir),
            "results_dir": str(layout.results_dir),
            **sections,
            # what is given counts, also where the method's preset says otherwise
            "overrides": {method: sections},
        }
        return settings, space


def _empty_folder(folder: Path | str) -> Path:
    """The folder, made where it is not there; raises ConfigError where it is not an empty one."""
    root = Path(folder).expanduser().resolve()
    if is_occupied(root):
        raise ConfigError(
            f"folder: {root} is a file, or has files in it; give a new one, or remove it."
        )
    root.mkdir(parents=True, exist_ok=True)
    return root
