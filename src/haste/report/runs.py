"""Finished runs as data: every number that tables and figures show, read and checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from haste.checksums import SUMS, check_file, read_description
from haste.config import RunConfig
from haste.errors import DataError
from haste.files import read_yaml, reading
from haste.former_names import renamed_columns
from haste.grid import GridConfig, RunKey
from haste.metrics.names import HISTORY, METRICS, RANKS, VALIDATED
from haste.metrics.runs import read_predictions
from haste.paths import RunDir
from haste.presets import method
from haste.report.convergence import has_converged, late_gain
from haste.report.render import GIB, MIB, MILLION, Column
from haste.runs import has_checkpoint, is_trained, made_by, run_files, stale

if TYPE_CHECKING:
    import pandas as pd

WITHOUT_RECIPROCAL = {f"P@{k}": f"P@{k} without reciprocal pairs" for k in RANKS}
"""columns of tables, by metric"""


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
    history: pd.DataFrame | None = None
    """history.csv, float64, a row an epoch, NaN where empty; None for linear methods"""
    epochs: int | None = None
    """of the configuration"""
    head_ratio: float | None = None
    """share of the labels in a dense head, 0 for none; None where all are dense, and for linear methods"""
    keeps_best: bool = False
    """whether the weights are those of the best evaluation (`training.patience`), not of the last epoch"""

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
        return None if self.history is None else float(self.history["loss"].iloc[-1])

    @property
    def late_gain(self) -> float | None:
        """Points gained on validation at the end, see `haste.report.convergence`; None for linear methods."""
        return None if self.history is None else late_gain(self.history)

    @property
    def converged(self) -> bool | None:
        """Whether that is little; None for linear methods. Of several seeds the mean is judged, see
        `mean_late_gain`."""
        return None if self.late_gain is None else has_converged(self.late_gain)

    def validation(self) -> dict[str, float | None]:
        """Percent on the validation split of the weights that were kept, by name, before the bias of the
        tail is tuned; None for linear methods."""
        if self.history is None:
            return dict.fromkeys(VALIDATED)
        rows = self.history[list(VALIDATED)]
        if self.keeps_best:
            means = rows.mean(axis=1)
            # of equal ones the last, as training does
            rows = rows[means == means.max()]
        return rows.iloc[-1].to_dict()

    def predictions(self) -> np.ndarray:
        """int32 [N, k]: predicted label ids, best first, -1 where there are fewer than k."""
        return read_predictions(RunDir(self.root))[0]


def load_run(run_dir: Path | str) -> Run:
    """Read one finished run.

    Raises DataError naming the file that is missing, damaged, stale or of a run that was stopped, and the
    command that makes it.
    """
    import pandas as pd

    files = RunDir(Path(run_dir))
    with reading(files.config, "the configuration of a run"):
        config = read_yaml(files.config)
        key = RunKey(*(config[field.name] for field in fields(RunKey)))
        resolved = RunConfig.from_dict(config) if is_trained(key) else None
    command = made_by(files, resolved is not None)
    for path in run_files(files, key):
        check_file(path, {}, command)
    again = f"Delete {files.metrics}, and make it again: {command}."
    with reading(files.metrics, "the metrics of a run", command):
        metrics = renamed_columns(read_description(files.metrics, command))
        values = {name: metrics["metrics"][name] for name in METRICS}
        measured = {
            "without_reciprocal_pairs": metrics["without_reciprocal_pairs"],
            "deciles": tuple(metrics["deciles"]),
            "backend": metrics["backend"],
        }
    with reading(files.resources, "the resources of a run", command):
        resources = renamed_columns(read_description(files.resources, command))
        if resources["completed"] is not True or (resolved and has_checkpoint(files)):
            raise DataError(f"{files.resources}: the run was stopped before its end. {again}")
        if resolved and (why := stale(resources, resolved)):
            raise DataError(f"{files.resources}: {why}. {again}")
    run = Run(files.root, key, values, resources=resources, **measured)
    if resolved is None:
        return run
    check_file(files.history, resources.get(SUMS, {}), command)
    epochs, dense = resolved.training.fixed_epochs, resolved.layer.pattern == "dense"
    with reading(files.history, "the history of a run", command):
        history = pd.read_csv(files.history)[list(HISTORY)].astype(float)
        epochs = epochs or max(len(history), 1)
        if len(history) != epochs or not np.isfinite(history["loss"]).all():
            raise DataError(
                f"{files.history}: expected {epochs} epochs with a finite loss, got "
                f"{np.isfinite(history['loss']).sum()}. {again}"
            )
    return replace(
        run,
        history=history,
        epochs=epochs,
        head_ratio=None if dense else resolved.layer.head_ratio,
        keeps_best=resolved.training.patience > 0,
    )


SHARED = "runs that are not known to have had their GPU to themselves: their times do not compare"


def time_notes(runs: Sequence[Run]) -> list[str]:
    """What is to be known of the seconds of runs, where there is something."""
    shared = any(run.on_gpu and not run.timed for run in runs)
    return [f"Seconds are of {SHARED}."] if shared else []


def place(dataset: str, runs: Sequence[Run]) -> str:
    """The data set, and what the runs were trained on."""
    return ", ".join([dataset, *sorted({str(run.resources["device"]) for run in runs})])


def run_note(runs: Sequence[Run]) -> str:
    """Devices, epochs and metric library of the runs."""
    devices = ", ".join(sorted({str(run.resources["device"]) for run in runs}))
    backends = ", ".join(sorted({run.backend for run in runs}))
    epochs = ", ".join(str(n) for n in sorted({run.epochs for run in runs if run.epochs}))
    return (
        f"Device: {devices or 'none'}. Epochs: {epochs or 'none'}. Metrics by {backends or 'none'}."
    )


def untuned_note(grid: GridConfig) -> list[str]:
    """Which rows have no trials of their own, where there are such."""
    untuned = grid.tuning.untuned if grid.tuning else ()
    titles = ", ".join(method(name).title for name in grid.methods if name in untuned)
    what = "No trials of their own, but settings that another row's trials chose"
    return [f"{what}: {titles}."] if titles else []


def mean_late_gain(runs: Sequence[Run]) -> float | None:
    """Of the seeds of a row, NaN where that of one is unknown; None where nothing was trained by epochs."""
    gains = [run.late_gain for run in runs if run.late_gain is not None]
    return fmean(gains) if gains else None


def run_row(run: Run) -> dict[str, Any]:
    """What the table `runs` has of a run, None where there is no such number: raw, by name of the column."""
    return {column.key: value for column, value in run_cells(run).items()}


def run_cells(run: Run) -> dict[Column, Any]:
    """The columns of the table `runs` for a run, None where there is no such number.

    Its name, metrics (percent; those of `validation` of the weights that were kept), the final training loss, resources
    (bytes, seconds), and `machine ...`: versions and hardware.
    """
    resources, reciprocal = run.resources, run.without_reciprocal_pairs or {}
    seconds, peak = resources["seconds"], resources["peak_bytes"]
    machine = resources.get("machine") or {}
    return {
        Column("dataset", "Data set"): run.key.dataset,
        Column("method", "Method"): run.key.method,
        Column("variant", "Variant"): run.key.variant,
        Column("seed", "Seed", digits=0): run.key.seed,
        **{Column(name, name): run.metrics[name] for name in METRICS},
        **{
            Column(name, name.replace("without", "w/o")): reciprocal.get(metric)
            for metric, name in WITHOUT_RECIPROCAL.items()
        },
        **{Column(f"validation {n}", f"{n}, validation"): v for n, v in run.validation().items()},
        Column("tail_bias_offset", "Tail bias offset", digits=2, signed=True): (
            resources.get("tail_bias_offset")
        ),
        Column("epochs", "Epochs", digits=0): run.epochs,
        Column("loss", "Training loss", digits=2): run.loss,
        Column("late_gain", "Late gain", digits=2, signed=True): run.late_gain,
        Column("converged", "Converged"): run.converged,
        Column("epoch_seconds", "Epoch (s)"): seconds.get("epoch"),
        Column("train_seconds", "Training (s)"): seconds.get("train"),
        Column("evaluate_seconds", "Evaluation (s)"): seconds.get("evaluate"),
        Column("runs_at_once", "Runs at once", digits=0): resources.get("runs_at_once"),
        Column("peak_train_bytes", "Peak memory, training (GiB)", digits=2, scale=GIB): (
            peak.get("train")
        ),
        Column("peak_evaluate_bytes", "Peak memory, evaluation (GiB)", digits=2, scale=GIB): (
            peak.get("evaluate")
        ),
        Column("state_bytes", "State (MiB)", scale=MIB): resources.get("state_bytes"),
        Column("layer_bytes", "Layer (MiB)", scale=MIB): resources.get("layer_bytes"),
        Column("parameters", "Parameters (M)", digits=2, scale=MILLION): resources.get(
            "parameters"
        ),
        Column("backend", "Metrics by"): run.backend,
        Column("device", "Device"): resources["device"],
        **{Column(f"machine {name}", f"Machine {name}"): value for name, value in machine.items()},
    }
