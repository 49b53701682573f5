"""Expected time, memory and disk of the runs of a grid: from finished runs, else from the scale benchmark
(seconds per step, results/benchmarks/<device>/scale.csv), else, on a CPU, from a cost model. On a GPU the
model is only used for reservations (`haste.reservation`), and the plan says which runs were not measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from haste.config import RunConfig
from haste.data.registry import Registry
from haste.errors import ConfigError, DataError
from haste.estimates import (
    BASE_MEMORY,
    PREDICTIONS,
    START_SECONDS,
    TEXT_BYTES,
    Benchmarks,
    Size,
    dataset_size,
    encoder_size,
    known_size,
    linear_seconds,
    model_bytes,
    model_of_run,
    placed,
    read_benchmarks,
)
from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.presets import method
from haste.reservation import Request, linear_request, training_request
from haste.runs import is_finished, read_resources, run_dir


@dataclass(frozen=True)
class RunPlan:
    """What one run is expected to take."""

    key: RunKey
    done: bool
    """finished with this configuration"""
    source: str
    """measured (a finished run of this method and data set), benchmark and its device, model, or
    not measured"""
    seconds: float | None
    """None where unknown"""
    on_gpu: bool
    memory: int | None
    """peak, bytes; None where unknown"""
    disk: int
    """bytes of the run's files"""
    request: Request
    """what its job asks for"""


@dataclass(frozen=True)
class DataPlan:
    """What the files of one data set are expected to take."""

    name: str
    size: Size
    made: bool
    """the corpus is there"""
    disk: int
    """bytes: texts as fetched and in the corpus, tokens, label embeddings and orders"""


def plan_runs(grid: GridConfig, registry: Registry, *, gpu: bool) -> list[RunPlan]:
    """The runs of a grid, in their order; `gpu`: whether `device: auto` is one.

    Raises ConfigError for an unknown data set.
    """
    sizes = {name: dataset_size(grid, registry, name) for name in grid.datasets}
    finished = {key: _finished(run_dir(grid, key)) for key in grid.runs()}
    benchmarks = read_benchmarks(grid)
    return [
        _plan(grid, registry, key, sizes[key.dataset], finished, benchmarks, gpu=gpu)
        for key in grid.runs()
    ]


def plan_data(grid: GridConfig, registry: Registry) -> list[DataPlan]:
    """The data sets of a grid: an upper bound of their disk, with every document at full length."""
    plans = []
    for name in grid.datasets:
        size = dataset_size(grid, registry, name)
        made = grid.layout.corpus(name).info.is_file()
        source = registry.dataset(name).path
        if source and not made and not Path(source).is_dir():
            raise ConfigError(
                f"datasets.{name}.path: {source} is no folder; give the one with its files."
            )
        keys = [key for key in grid.runs() if key.dataset == name]
        configs = [grid.resolve(key) for key in keys if method(key.method).kind == "trained"]
        lengths = {(run.encoder.model_name, run.encoder.max_len) for run in configs}
        hidden = {
            run.inputs.model: encoder_size(run.encoder, run.inputs.model, registry)[0]
            for run in configs
        }
        orders = {path for run in configs for path in (run.inputs.order, run.inputs.clusters)}
        disk = 2 * TEXT_BYTES * size.documents * max((length for _, length in lengths), default=0)
        disk += sum(4 * size.documents * length for _, length in lengths)
        disk += sum(4 * size.labels * dimensions for dimensions in hidden.values())
        disk += 4 * size.labels * len(orders - {None})
        plans.append(DataPlan(name, size, made, disk))
    return plans


def _plan(
    grid: GridConfig,
    registry: Registry,
    key: RunKey,
    size: Size,
    finished: Mapping[RunKey, Mapping[str, Any] | None],
    benchmarks: Benchmarks,
    *,
    gpu: bool,
) -> RunPlan:
    trained = method(key.method).kind == "trained"
    config = placed(grid.resolve(key), gpu=gpu) if trained else None
    on_gpu = config is not None and config.training.device == "cuda"
    disk = size.test * PREDICTIONS * 8
    known = known_size(size, key.dataset, benchmarks)
    request = linear_request(known)
    if config:
        disk += model_bytes(config, size, registry)
        request = training_request(config, known, registry, benchmarks)
    step = benchmarks.get(key.dataset, {}).get(key.method)
    similar = _similar(key, finished)
    seconds: float | None = None
    memory: int | None = None
    done = False
    if similar:
        source, done = "measured", is_finished(grid, key)
        seconds = statistics.median(_seconds(resources, config, size) for resources in similar)
        memory = max(max(resources["peak_bytes"].values()) for resources in similar)
    elif config is None:
        source, memory = "model", 2 * BASE_MEMORY
        seconds = START_SECONDS + linear_seconds(size)
    elif size.train and step:
        source, seconds = f"benchmark {step.device}", step.seconds(config, size)
    elif on_gpu or not size.train:
        source = "not measured"
    else:
        source = "model"
        seconds, memory = model_of_run(config, size, registry)
    return RunPlan(key, done, source, seconds, on_gpu, memory, disk, request)


def _seconds(resources: Mapping[str, Any], config: RunConfig | None, size: Size) -> float:
    """Seconds of a run with the epochs of `config`, from the resources of a finished one."""
    seconds = resources["seconds"]
    fixed = START_SECONDS + seconds.get("setup", 0.0) + seconds.get("evaluate", 0.0)
    if config is None or "epoch" not in seconds:
        return fixed + seconds.get("train", 0.0)
    return fixed + seconds["epoch"] * config.training.epochs_on(size.train)


def _similar(
    key: RunKey, finished: Mapping[RunKey, Mapping[str, Any] | None]
) -> list[Mapping[str, Any]]:
    """Resources of finished runs like this one: itself, else other seeds, else other variants."""
    for same in (
        ("dataset", "method", "variant", "seed"),
        ("dataset", "method", "variant"),
        ("dataset", "method"),
    ):
        names = attrgetter(*same)
        similar = [
            resources
            for other, resources in finished.items()
            if resources and names(other) == names(key)
        ]
        if similar:
            return similar
    return []


def _finished(run: RunDir) -> Mapping[str, Any] | None:
    """resources.json of a finished run; None where it is missing or damaged."""
    try:
        resources = read_resources(run)
    except DataError:
        return None
    return resources if resources.get("completed") else None
