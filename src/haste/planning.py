"""What the runs of a grid will take: from runs that are finished, else from a model of the cost.

The model counts multiplications. A step multiplies a [B, L] and a [B, H] or [L, H] matrix three
times (logits, gradient of the features, gradient of the weights), 2 operations each; a transformer
does 6 operations a parameter and token. Both are divided by the rates below, and an evaluation is a
third of the same over the test documents. Sparse patterns are charged as dense: on a CPU they are
masked dense products or gathers that cost about as much. Expect it to be right within a factor of
two on a CPU and of three on a GPU; one finished run of a method replaces it for the others.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haste.config import GridConfig, RunConfig, RunKey, method
from haste.data.registry import Registry
from haste.errors import DataError
from haste.files import read_json, read_yaml
from haste.paths import RunDir

MIB = 2**20
HIDDEN = 384
"""H, where the model has not been fetched yet"""
TRANSFORMER_PARAMETERS = 22_000_000
"""of a six-layer encoder with H = 384"""
RATE = {"cpu": 4e10, "cuda": 2e13}
"""operations a second: of one core in float32, of a GPU in mixed precision"""
STEP_SECONDS = {"cpu": 0.004, "cuda": 0.004}
"""what a step costs besides: batches, launches, the encoder's optimiser"""
START_SECONDS = 10.0
"""starting Python and torch, which no phase of a run counts"""
LINEAR_SECONDS_PER_LABEL = 0.006
"""TF-IDF and omikuji on one core"""
BASE_MEMORY = 700 * MIB
"""interpreter and libraries"""
CUDA_HOST_MEMORY = 6 * 1024 * MIB
"""main memory of a process that trains on a GPU"""
ROOM = 1.3
"""memory reserved for memory expected"""
PREDICTIONS = 100
"""label ids and scores kept a test document"""


@dataclass(frozen=True)
class RunPlan:
    """What one run is expected to take."""

    key: RunKey
    done: bool
    """finished with just this configuration"""
    source: str
    """`measured` (a finished run of this method and data set) or `model`"""
    seconds: float
    memory: int
    """peak, bytes"""
    disk: int
    """bytes of what the run leaves"""


@dataclass(frozen=True)
class Size:
    """Of a data set: documents and labels."""

    train: int
    test: int
    labels: int


def plan_runs(grid: GridConfig, registry: Registry) -> list[RunPlan]:
    """The runs of a grid, in their order; raises ConfigError for a data set nobody knows."""
    sizes = {name: dataset_size(grid, registry, name) for name in grid.datasets}
    finished = {key: _finished(_run_dir(grid, key)) for key in grid.runs()}
    return [_plan(grid, key, sizes[key.dataset], finished) for key in grid.runs()]


def reservation(config: RunConfig, size: Size) -> tuple[int, int]:
    """MiB of main memory and minutes to reserve for a run: the model's, with room for its error."""
    seconds, memory = _model(config, size)
    if config.training.device == "cuda":
        memory = CUDA_HOST_MEMORY
    return round(ROOM * memory / MIB), 15 + round(3 * seconds / 60)


def dataset_size(grid: GridConfig, registry: Registry, name: str) -> Size:
    """Size of the corpus, or what the registry expects where it has not been made yet."""
    info = grid.layout.corpus(name).info
    if info.is_file():
        found = read_json(info)
        return Size(found["documents"]["train"], found["documents"]["test"], found["n_labels"])
    return expected_size(registry, name)


def expected_size(registry: Registry, name: str) -> Size:
    """Size of a data set as the registry expects it; 0 where it does not say."""
    expected = registry.dataset(name).expected
    return Size(*(expected.get(count, 0) for count in ("train", "test", "labels")))


def _plan(
    grid: GridConfig, key: RunKey, size: Size, finished: Mapping[RunKey, Mapping[str, Any] | None]
) -> RunPlan:
    run_dir = _run_dir(grid, key)
    trained = method(key.method).kind == "trained"
    config = grid.resolve(key) if trained else None
    disk = size.test * PREDICTIONS * 8 + (4 * _stored_weights(config, size) if config else 0)
    similar = _similar(key, finished)
    if similar:
        seconds = statistics.median(_seconds(each, config) for each in similar)
        memory = max(max(each["peak_bytes"].values()) for each in similar)
        done = finished[key] is not None and (config is None or _same(run_dir, config))
        return RunPlan(key, done, "measured", seconds, memory, disk)
    if config is None:
        seconds = START_SECONDS + LINEAR_SECONDS_PER_LABEL * size.labels
        return RunPlan(key, False, "model", seconds, BASE_MEMORY * 2, disk)
    return RunPlan(key, False, "model", *_model(config, size), disk)


def _model(config: RunConfig, size: Size) -> tuple[float, int]:
    """Seconds and peak bytes of a run by the cost model."""
    training = config.training
    device = "cuda" if training.device == "cuda" else "cpu"
    hidden = _hidden(config)
    a_document = 6 * size.labels * hidden
    if config.encoder.kind == "transformer":
        a_document += 6 * TRANSFORMER_PARAMETERS * config.encoder.max_len
    rate = RATE[device] * (training.threads if device == "cpu" else 1)
    steps = -(-size.train // training.batch_size)
    epoch = size.train * a_document / rate + steps * STEP_SECONDS[device]
    test = size.test * a_document / 3 / rate
    seconds = START_SECONDS + training.epochs * epoch + test
    weights = size.labels * hidden * 4
    logits = training.batch_size * size.labels * 4
    # weights, gradient, momentum, mask; logits, targets and their gradient
    memory = BASE_MEMORY + 4 * weights + 3 * logits
    return seconds, memory


def _stored_weights(config: RunConfig, size: Size) -> int:
    """Numbers in model.safetensors, the encoder's embeddings left out where they are small."""
    layer = config.layer
    width = (
        layer.fan_in if layer.pattern in ("group_fan_in", "block_sparse", "bottleneck") else None
    )
    encoder = TRANSFORMER_PARAMETERS if config.encoder.kind == "transformer" else 0
    return encoder + size.labels * (width or _hidden(config))


def _hidden(config: RunConfig) -> int:
    path = Path(config.inputs.model) / "config.json"
    return int(read_json(path)["hidden_size"]) if path.is_file() else HIDDEN


def _seconds(resources: Mapping[str, Any], config: RunConfig | None) -> float:
    """Seconds of a run like the one measured, with the epochs of `config`."""
    seconds = resources["seconds"]
    once = START_SECONDS + seconds.get("setup", 0.0) + seconds.get("evaluate", 0.0)
    if config is None or "epoch" not in seconds:
        return once + seconds.get("train", 0.0)
    return once + seconds["epoch"] * config.training.epochs


def _similar(
    key: RunKey, finished: Mapping[RunKey, Mapping[str, Any] | None]
) -> list[Mapping[str, Any]]:
    """Finished runs to judge by: this one, else other seeds, else other variants."""
    for same in (
        lambda other: other == key,
        lambda other: other.variant == key.variant,
        lambda _: True,
    ):
        found = [
            resources
            for other, resources in finished.items()
            if resources
            and (other.dataset, other.method) == (key.dataset, key.method)
            and same(other)
        ]
        if found:
            return found
    return []


def _finished(run: RunDir) -> Mapping[str, Any] | None:
    """resources.json of a finished run; None where there is none that can be read."""
    try:
        resources = read_json(run.resources)
    except DataError:
        return None
    return resources if resources.get("completed") else None


def _same(run: RunDir, config: RunConfig) -> bool:
    try:
        return read_yaml(run.config) == config.as_dict()
    except DataError:
        return False


def _run_dir(grid: GridConfig, key: RunKey) -> RunDir:
    return grid.layout.run(key.dataset, key.method, key.variant, key.seed)
