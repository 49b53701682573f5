"""The scale benchmark: time and memory of training steps at the paper's sizes.

The models are those of a grid of runs (its data sets, their published hyper-parameters), with an encoder
of random weights, on random documents (`haste.bench.documents`), so that no data set is needed. The step
and the loader are those of training. A second set of rows, `sweep`, has the shape of one data set with
increasing numbers of labels.
"""

from __future__ import annotations

import csv
import datetime
import gc
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from triton.errors import TritonError

from haste.bench.documents import statistics
from haste.bench.reason import reason
from haste.bench.rows import rounded, slug
from haste.bench.training_steps import GIB, measure
from haste.bench.workload import Workload, architecture
from haste.commit import CHANGED
from haste.errors import KernelError
from haste.files import read_json, write_json, write_rows
from haste.former_names import renamed_columns
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
from haste.progress import counting
from haste.resources import machine
from haste.selection import select

log = logging.getLogger(__name__)

COLUMNS = (
    "dataset",
    "method",
    "preset",
    "labels",
    "batch",
    "max_len",
    "tokens_per_step",
    "padded_tokens_per_step",
    "seconds_per_step",
    "encoder_seconds",
    "layer_seconds",
    "rest_seconds",
    "rewire_seconds",
    "topk_seconds",
    "topk_gib",
    "epoch_minutes",
    "peak_allocated_gib",
    "peak_reserved_gib",
    "steps_allocated_gib",
    "rewire_allocated_gib",
    "layer_gib",
    "layer_share",
    "busy_share",
    "synchronizations_per_step",
    "steps_per_epoch",
    "momentum",
    "note",
)
"""of scale.csv. `peak_*`: of steps and of steps that rewire, the larger; `layer_share`: of a step's time;
`busy_share`: time of kernels over time of the step; `synchronizations_per_step`: of the host with the GPU;
`topk_*`: finding the TOP best labels of TOPK_BATCH documents from their features, and memory beyond what was
allocated before; `note`: why a row has no times"""
PROFILE_COLUMNS = (
    "dataset",
    "method",
    "preset",
    "kernel",
    "calls_per_step",
    "milliseconds_per_step",
)
"""of scale_profile.csv, which has the kernels that take most of a step"""
METHODS = ("haste", "spartex", "elmo-bf16", "bottleneck", "fixed-fan-in")
DEFAULT, SPEED = "default", "speed"
PRESETS: dict[str, dict[str, dict[str, bool | str]]] = {
    DEFAULT: {"encoder": {"attention": "packed", "gradient_checkpointing": True}},
    SPEED: {"encoder": {"attention": "packed", "gradient_checkpointing": False}},
}
"""changes of a run's settings, by section"""
SWEEP = "sweep"
SWEEP_LIKE = "LF-Paper2Keywords-8.6M"
"""the data set whose hyper-parameters the sweep has"""
SWEEP_LABELS = (131_073, 670_091, 2_812_281, 8_623_847, 25_000_000, 50_000_000, 100_000_000)
SWEEP_BEYOND = (200_000_000, 400_000_000, 800_000_000)
"""larger sizes of the sweep, for HASTE only"""
SWEEP_MOST = 8_623_847
"""largest number of labels of the other methods in the sweep"""
SWEEP_STEPS = 2
"""timed steps of a row of the sweep"""


@dataclass(frozen=True)
class ScaleRow:
    """A row of scale.csv to measure."""

    dataset: str
    method: str
    preset: str
    labels: int | None = None
    """only of a row of the sweep"""

    @property
    def name(self) -> str:
        """The name that --only matches."""
        return "/".join((self.dataset, self.method, self.preset))


def plan(grid: GridConfig, only: Sequence[str] = ()) -> list[ScaleRow]:
    """The rows in the order of measurement: those that claims read come first.

    `only`: patterns of dataset/method/preset, or the name of one of the three. Raises ConfigError for
    one that no row matches.
    """
    ours, others = METHODS[:1], METHODS[1:]

    def all_datasets(methods: Sequence[str], preset: str) -> list[ScaleRow]:
        return [ScaleRow(dataset, name, preset) for name in methods for dataset in grid.datasets]

    def sweep(methods: Sequence[str], sizes: Sequence[int]) -> list[ScaleRow]:
        swept = methods if SWEEP_LIKE in grid.datasets else ()
        return [ScaleRow(SWEEP, name, DEFAULT, size) for name in swept for size in sizes]

    rows = [
        *all_datasets(ours, DEFAULT),
        *all_datasets(ours, SPEED),
        *all_datasets(others, DEFAULT),
        *sweep(ours, SWEEP_LABELS),
        *all_datasets(others, SPEED),
        *sweep(others, [size for size in SWEEP_LABELS if size <= SWEEP_MOST]),
        *sweep(ours, SWEEP_BEYOND),
    ]
    return select(rows, only, "dataset/method/preset")


def workload_of(row: ScaleRow, grid: GridConfig) -> Workload:
    """The run of the grid that a row stands for; raises ConfigError for an unknown encoder or data set."""
    like = SWEEP_LIKE if row.dataset == SWEEP else row.dataset
    config = grid.resolve(RunKey(like, row.method, DEFAULT_VARIANT, 0))
    for section, changes in PRESETS[row.preset].items():
        config = replace(config, **{section: replace(getattr(config, section), **changes)})
    published, shape = statistics(like), architecture(config.encoder.model_name)
    if row.labels is None:
        return Workload(config, published, shape, profiled=row.method == METHODS[0])
    return Workload(config, replace(published, labels=row.labels), shape, SWEEP_STEPS)


def bench(
    out: Path, grid: GridConfig, rows: Sequence[ScaleRow], *, seconds: float | None = None
) -> Path:
    """Measure `rows` and write OUT/<device>/scale.csv, scale_profile.csv and scale.json (the machine).

    The files are rewritten after each row; earlier rows by the same code on the same machine that are not
    among `rows` are kept. No row begins after `seconds`. A row that does not fit in memory has a note, and
    larger rows of its sweep are skipped. Raises KernelError where there is no CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise KernelError(
            "the scale benchmark needs a CUDA GPU, and this machine has none: times taken on a CPU say "
            "nothing about training at this size. Committed results are left as they are."
        )
    device = torch.device("cuda", 0)
    folder = out / slug(torch.cuda.get_device_name(device))
    folder.mkdir(parents=True, exist_ok=True)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    described = {**machine(), "memory_gib": round(_total(device) / GIB, 1)}
    records, profiles = _kept(folder, described, rows)
    write_json(folder / "scale.json", {**described, "date": date})
    begin = time.perf_counter()
    full: dict[str, int] = {}
    with counting("Measuring", len(rows)) as tick:
        for number, row in enumerate(rows):
            tick(number)
            if row.labels and row.labels >= full.get(row.method, row.labels + 1):
                continue
            spent = time.perf_counter() - begin
            if seconds is not None and spent > seconds:
                left = ", ".join(dict.fromkeys(skipped.name for skipped in rows[number:]))
                log.warning("%.0f s are over; not measured: %s", seconds, left)
                break
            record, kernels = _measured(row, workload_of(row, grid), device)
            if record["note"] and row.labels:
                full[row.method] = row.labels
            records.append(record)
            profiles += kernels
            write_rows(folder / "scale.csv", COLUMNS, map(rounded, records))
            write_rows(folder / "scale_profile.csv", PROFILE_COLUMNS, map(rounded, profiles))
            log.info("%s", _summary(record, time.perf_counter() - begin - spent))
    return folder / "scale.csv"


def _measured(
    row: ScaleRow, workload: Workload, device: torch.device
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record of a row, also of one that does not fit, and rows of its profile."""
    names = {"dataset": row.dataset, "method": row.method, "preset": row.preset}
    record = {**dict.fromkeys(COLUMNS), **names, "labels": workload.statistics.labels}
    kernels: list[dict[str, Any]] = []
    try:
        values, kernels = measure(workload, device)
        # losses of random weights are for the benchmark of several ranks alone
        record |= {name: value for name, value in values.items() if name in record}
    except torch.OutOfMemoryError:
        record["note"] = f"out of memory ({_total(device) / GIB:.0f} GiB)"
    except (RuntimeError, TritonError, KernelError) as error:
        record["note"] = reason(error)
        log.exception("%s: does not run", row.name)
        _check_gpu(row)
    # the model may be in reference cycles, and products keep workspaces for streams that are no more in use
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return record, [{**names, **kernel} for kernel in kernels]


def _check_gpu(row: ScaleRow) -> None:
    """Raise KernelError where the GPU no longer works for this process after a row."""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        reason = str(error).split("\n")[0]
        raise KernelError(
            f"{row.name}: the GPU failed ({reason}). The rows before it are written; measure those after it "
            "with --only."
        ) from error


def _kept(
    folder: Path, described: dict[str, Any], rows: Sequence[ScaleRow]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Earlier records and profiles by the machine and code `described`, without those of `rows`."""
    path = folder / "scale.json"
    before = read_json(path) if path.is_file() else {}
    commit = described.get("commit", CHANGED)
    if commit.endswith(CHANGED) or before | {"date": None} != described | {"date": None}:
        return [], []
    named = {_name(vars(row)) for row in rows}
    records, profiles = (
        [row for row in _read(folder / file) if _name(row) not in named]
        for file in ("scale.csv", "scale_profile.csv")
    )
    return records, profiles


def _name(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The key of a row; with labels only in the sweep, where several rows have the same name."""
    labels = row.get("labels") if row["dataset"] == SWEEP else None
    return (row["dataset"], row["method"], row["preset"], str(labels or ""))


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [renamed_columns(row) for row in csv.DictReader(stream)]


def _summary(record: dict[str, Any], took: float) -> str:
    name = "/".join(str(record[key]) for key in ("dataset", "method", "preset", "labels"))
    if record["note"]:
        return f"{name}: {record['note']} ({took:.0f} s)"
    return (
        f"{name}: {1e3 * record['seconds_per_step']:.2f} ms per step (encoder "
        f"{1e3 * record['encoder_seconds']:.2f}, layer {1e3 * record['layer_seconds']:.2f}), "
        f"{record['peak_allocated_gib']:.2f} GiB, measured in {took:.0f} s"
    )


def _total(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory
