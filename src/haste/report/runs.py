"""Finished runs as data: every number that tables and figures show, read and checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from haste.checksums import SUMS, check_file, read_description
from haste.config import RunConfig
from haste.errors import ConfigError, DataError
from haste.files import read_npz, read_yaml, reading
from haste.former_names import renamed_columns
from haste.grid import RunKey
from haste.metrics.names import HISTORY, METRICS, RANKS, VALIDATED
from haste.paths import RunDir
from haste.presets import method
from haste.report.convergence import has_converged, late_gain
from haste.report.registry import run_files
from haste.runs import has_checkpoint, made_by, stale

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Run:
    """One finished run."""

    root: Path
    key: RunKey
    metrics: Mapping[str, float]
    """percent, by name: P@1 .. R@100"""
    without_reciprocal_pairs: Mapping[str, float] | None
    """P@1, P@3, P@5 without reciprocal pairs, percent; None where the corpus has none"""
    deciles: tuple[Mapping[str, float | None], ...]
    """rows of metrics.json, from the most to the least frequent labels"""
    backend: str
    resources: Mapping[str, Any]
    history: Mapping[str, np.ndarray] | None
    """columns of history.csv as float64 [epochs], NaN where empty; None for linear methods"""
    epochs: int | None
    """of the configuration"""
    head_ratio: float | None = None
    """share of the labels in a dense head, 0 for none; None where all are dense, and for linear methods"""
    split: str = "test"
    """that metrics and predictions are of: test, or validation"""

    @property
    def on_gpu(self) -> bool:
        """Whether it was trained on a GPU; then peak memory is what was allocated there."""
        return not str(self.resources["device"]).upper().startswith("CPU")

    @property
    def timed(self) -> bool:
        """Whether its seconds can be compared: it is known to have had its device to itself."""
        return self.resources.get("runs_at_once") == 1

    @property
    def loss(self) -> float | None:
        """Training loss of the last epoch, mean a document."""
        return None if self.history is None else float(self.history["loss"][-1])

    @property
    def late_gain(self) -> float | None:
        """Points gained on validation at the end, see `haste.report.convergence`; None for linear methods."""
        return None if self.history is None else late_gain(self.history)

    @property
    def converged(self) -> bool | None:
        """Whether that is little; None for linear methods."""
        return None if self.history is None else has_converged(self.history)

    def validation(self) -> dict[str, float | None]:
        """Percent on the validation split after the last epoch, by name, before the tail is calibrated;
        None for linear methods."""
        last = {} if self.history is None else self.history
        return {name: float(last[name][-1]) if name in last else None for name in VALIDATED}

    def predictions(self) -> np.ndarray:
        """int32 [N, k]: predicted label ids, best first, -1 where there are fewer than k."""
        path = RunDir(self.root).predictions
        arrays = read_npz(path)
        if "ids" not in arrays:
            raise DataError(f"{path}: no predicted ids in it.{_again(self.root)}")
        return arrays["ids"]


def load_runs(run_dirs: Iterable[Path | str]) -> list[Run]:
    """Read finished runs, in the order given.

    Raises DataError naming the file that is missing, damaged or of a run that was stopped, and the
    command that makes it.
    """
    return [load_run(run_dir) for run_dir in run_dirs]


def load_run(run_dir: Path | str) -> Run:
    """Read one finished run; raises DataError as `load_runs` does."""
    root = Path(run_dir)
    files = RunDir(root)
    _check_made(files, files.config)
    config = _mapping(
        read_yaml(files.config), files.config, ("dataset", "method", "variant", "seed")
    )
    key = RunKey(config["dataset"], config["method"], config["variant"], config["seed"])
    try:
        trained = method(key.method).kind == "trained"
        resolved = RunConfig.from_dict(config) if trained else None
    except ConfigError as error:
        raise DataError(f"{files.config}: {error}") from error
    command = made_by(files, trained)
    _check_made(files, *run_files(files, key))
    metrics = _mapping(
        renamed_columns(read_description(files.metrics, command)),
        files.metrics,
        ("metrics", "without_reciprocal_pairs", "deciles", "backend"),
    )
    resources = _mapping(
        renamed_columns(read_description(files.resources, command)),
        files.resources,
        ("device", "seconds", "peak_bytes", "completed"),
    )
    values = _mapping(metrics["metrics"], files.metrics, METRICS)
    if resources["completed"] is not True:
        raise DataError(f"{files.resources}: the run was stopped before its end.{_again(root)}")
    history = epochs = head_ratio = None
    split = "test"
    if resolved:
        if why := stale(resources, resolved):
            raise DataError(f"{files.resources}: {why}.{_again(root)}")
        if has_checkpoint(files):
            raise DataError(
                f"{files.checkpoint}: the run was stopped before its end.{_again(root)}"
            )
        if resolved.layer.pattern != "dense":
            head_ratio = resolved.layer.head_ratio
        epochs, split = resolved.training.epochs, resolved.training.evaluate
        check_file(files.history, resources.get(SUMS, {}), command)
        history = _history(files, epochs)
    return Run(
        root=root,
        key=key,
        metrics=values,
        without_reciprocal_pairs=metrics["without_reciprocal_pairs"],
        deciles=tuple(metrics["deciles"]),
        backend=str(metrics["backend"]),
        resources=resources,
        history=history,
        epochs=epochs,
        head_ratio=head_ratio,
        split=split,
    )


SHARED = "runs that are not known to have had their GPU to themselves: their times do not compare"


def time_notes(runs: Sequence[Run]) -> list[str]:
    """What is to be known of the seconds of runs, where there is something."""
    shared = any(run.on_gpu and not run.timed for run in runs)
    return [f"Seconds are of {SHARED}."] if shared else []


def run_note(runs: Sequence[Run]) -> str:
    """Devices, epochs and metric library of the runs."""
    devices = ", ".join(sorted({str(run.resources["device"]) for run in runs}))
    backends = ", ".join(sorted({run.backend for run in runs}))
    epochs = ", ".join(str(n) for n in sorted({run.epochs for run in runs if run.epochs}))
    return (
        f"Device: {devices or 'none'}. Epochs: {epochs or 'none'}. Metrics by {backends or 'none'}."
    )


def run_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """One row a run, see `run_row`."""
    import pandas as pd

    return pd.DataFrame([run_row(run) for run in runs])


def run_row(run: Run) -> dict[str, Any]:
    """What the table `runs` has of a run, None where there is no such number.

    Its name, metrics (percent; those of `validation` after the last epoch), resources (bytes, seconds), the
    final training loss, `late_gain` and `converged`, and `machine ...`: versions and hardware.
    """
    resources, reciprocal = run.resources, run.without_reciprocal_pairs or {}
    return {
        "dataset": run.key.dataset,
        "method": run.key.method,
        "variant": run.key.variant,
        "seed": run.key.seed,
        **{name: run.metrics[name] for name in METRICS},
        **{f"P@{k} without reciprocal pairs": reciprocal.get(f"P@{k}") for k in RANKS},
        **{f"validation {name}": value for name, value in run.validation().items()},
        "tail_bias_offset": resources.get("tail_bias_offset"),
        "device": resources["device"],
        "parameters": resources.get("parameters"),
        "layer_bytes": resources.get("layer_bytes"),
        "state_bytes": resources.get("state_bytes"),
        "peak_train_bytes": resources["peak_bytes"].get("train"),
        "peak_evaluate_bytes": resources["peak_bytes"].get("evaluate"),
        "epoch_seconds": resources["seconds"].get("epoch"),
        "train_seconds": resources["seconds"].get("train"),
        "evaluate_seconds": resources["seconds"].get("evaluate"),
        "runs_at_once": resources.get("runs_at_once"),
        "epochs": run.epochs,
        "loss": run.loss,
        "late_gain": run.late_gain,
        "converged": run.converged,
        "backend": run.backend,
        **{f"machine {name}": value for name, value in (resources.get("machine") or {}).items()},
    }


def _history(files: RunDir, epochs: int) -> dict[str, np.ndarray]:
    import pandas as pd

    with reading(files.history, "a training history (csv)"):
        frame = pd.read_csv(files.history)
        missing = [name for name in HISTORY if name not in frame]
        if missing:
            raise DataError(f"{files.history}: no column {', '.join(missing)}.{_again(files.root)}")
        columns = {name: frame[name].to_numpy(np.float64) for name in HISTORY}
    if len(frame) != epochs:
        raise DataError(
            f"{files.history}: {len(frame)} of {epochs} epochs; the run is not complete.{_again(files.root)}"
        )
    if not np.isfinite(columns["loss"]).all():
        raise DataError(f"{files.history}: a loss that is not a finite number.{_again(files.root)}")
    return columns


def _check_made(files: RunDir, *paths: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; this run has not been made.{_again(files.root)}"
            )


def _mapping(value: Any, path: Path, keys: Iterable[str]) -> Mapping[str, Any]:
    """`value`, when it is a mapping with all of `keys`."""
    if not isinstance(value, Mapping):
        raise DataError(f"{path}: damaged (not a mapping).{_again(path.parent)}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise DataError(f"{path}: damaged (without {', '.join(missing)}).{_again(path.parent)}")
    return value


def _again(root: Path) -> str:
    return f" Delete {RunDir(root).metrics}, and make the run again."
