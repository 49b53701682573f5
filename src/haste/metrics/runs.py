"""The predictions and metrics of a finished run, on disk."""

from __future__ import annotations

from typing import Any

import numpy as np

from haste.checksums import write_description
from haste.errors import DataError
from haste.files import read_npz, read_yaml, write_npz
from haste.metrics.truth import load_truth
from haste.paths import SPLITS, RunDir


def write_predictions(run: RunDir, ids: np.ndarray, scores: np.ndarray) -> None:
    """Write predictions.npz: ids as int32 [N, k], scores as float32 [N, k]."""
    write_npz(run.predictions, ids=ids.astype(np.int32), scores=scores.astype(np.float32))


def read_predictions(run: RunDir) -> tuple[np.ndarray, np.ndarray]:
    """ids int32 [N, k] and scores float32 [N, k]; raises DataError naming the file."""
    arrays = read_npz(run.predictions)
    if not {"ids", "scores"} <= set(arrays):
        raise DataError(
            f"{run.predictions}: has {', '.join(sorted(arrays)) or 'nothing'}; expected ids and scores. "
            "Delete it and train again."
        )
    return arrays["ids"], arrays["scores"]


def evaluate_run(run: RunDir) -> dict[str, Any]:
    """Write metrics.json again from predictions.npz and the corpus that config.yaml names.

    A relative path of the corpus is relative to the working folder, as in training. The split is that
    of `training.evaluate`, test where a config does not say. Returns what was written; raises DataError
    naming the file that is missing, damaged or does not fit.
    """
    config = read_yaml(run.config)
    try:
        root = config["inputs"]["corpus"]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{run.config}: inputs.corpus is missing; not the config of a run."
        ) from error
    split = (config.get("training") or {}).get("evaluate", "test")
    if split not in SPLITS[1:]:
        raise DataError(
            f"{run.config}: training.evaluate is {split!r}; expected validation or test. "
            "Delete it and train again."
        )
    metrics = load_truth(root, split).evaluate(*read_predictions(run))
    write_description(run.metrics, metrics)
    return metrics
