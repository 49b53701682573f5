"""Expected time, memory and disk of the runs of a grid: from finished runs, else from the scale benchmark
(seconds per step, results/benchmarks/<device>/scale.csv), else, on a CPU, from a cost model. On a GPU the
model is only used for reservations (`haste.reservation`), and the plan says which runs were not measured.

The model counts multiplications. A step multiplies a [B, L] and a [B, H] or [L, H] matrix three
times (logits, gradient of the features, gradient of the weights), 2 operations each; a transformer
does 6 operations per parameter and token. Both are divided by the rates below, and the evaluation of a
batch of validation or test documents takes a third of a step. Sparse patterns count as dense: on a CPU
they are masked dense products or gathers that cost about as much. The model is right within a factor of
two on a CPU and three on a GPU; one finished run of a method replaces it for the others.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haste.config import EncoderConfig, RunConfig
from haste.data.registry import Registry
from haste.errors import ConfigError, DataError
from haste.files import read_json, reading
from haste.former_names import renamed_columns
from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.presets import method
from haste.runs import is_finished, read_resources, run_dir

MIB = 2**20
HIDDEN = 384
"""H, where the model has not been fetched and the registry does not have it"""
TRANSFORMER_PARAMETERS = 22_000_000
"""of a six-layer encoder with H = 384, where the registry does not have it"""
RATE = {"cpu": 4e10, "cuda": 1e14}
"""operations per second: of one core in float32, of a GPU in mixed precision (an H100 does 3e14 of an
encoder's in the scale benchmark)"""
STEP_SECONDS = {"cpu": 0.004, "cuda": 0.004}
"""per step, besides multiplications: batches, launches, the encoder's optimiser"""
START_SECONDS = 10.0
"""of starting Python and torch, which is in no phase of a run"""
LINEAR_SECONDS_PER_LABEL = 0.006
"""TF-IDF and omikuji on one core"""
BASE_MEMORY = 700 * MIB
"""interpreter and libraries"""
PREDICTIONS = 100
"""label ids and scores per test document"""
TEXT_BYTES = 6
"""of a word and a blank, as fetched and once more in the corpus"""
BENCHMARK = "scale.csv"
"""columns dataset, method, seconds_per_step; batch and steps_per_epoch say how many documents a data set
has; there may be more"""


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


@dataclass(frozen=True)
class Size:
    """Numbers of documents and labels of a data set; 0 where unknown."""

    train: int
    test: int
    labels: int
    validation: int = 0


@dataclass(frozen=True)
class DataPlan:
    """What the files of one data set are expected to take."""

    name: str
    size: Size
    made: bool
    """the corpus is there"""
    disk: int
    """bytes: texts as fetched and in the corpus, tokens, label embeddings and orders"""


@dataclass(frozen=True)
class Benchmark:
    """A row of the scale benchmark."""

    device: str
    seconds_per_step: float
    documents: int
    """of training, about; 0 where the row does not say"""


Benchmarks = Mapping[tuple[str, str], Benchmark]
"""by data set and method"""


def plan_runs(grid: GridConfig, registry: Registry) -> list[RunPlan]:
    """The runs of a grid, in their order; raises ConfigError for an unknown data set."""
    sizes = {name: dataset_size(grid, registry, name) for name in grid.datasets}
    finished = {key: _finished(run_dir(grid, key)) for key in grid.runs()}
    benchmarks = read_benchmarks(grid)
    return [
        _plan(grid, registry, key, sizes[key.dataset], finished, benchmarks) for key in grid.runs()
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
        configs = [grid.resolve(key) for key in grid.runs() if _is_trained(key, name)]
        documents = size.train + size.validation + size.test
        lengths = {(run.encoder.model_name, run.encoder.max_len) for run in configs}
        hidden = {
            run.inputs.model: encoder_size(run.encoder, run.inputs.model, registry)[0]
            for run in configs
        }
        orders = {path for run in configs for path in (run.inputs.order, run.inputs.clusters)}
        disk = 2 * TEXT_BYTES * documents * max((length for _, length in lengths), default=0)
        disk += sum(4 * documents * length for _, length in lengths)
        disk += sum(4 * size.labels * dimensions for dimensions in hidden.values())
        disk += 4 * size.labels * len(orders - {None})
        plans.append(DataPlan(name, size, made, disk))
    return plans


def dataset_size(grid: GridConfig, registry: Registry, name: str) -> Size:
    """Size of the corpus, or what the registry expects where it has not been made yet."""
    info = grid.layout.corpus(name).info
    if info.is_file():
        description = read_json(info, "haste corpus")
        with reading(info, "the description of a corpus", "haste corpus"):
            documents = description["documents"]
            return Size(
                documents["train"],
                documents["test"],
                description["n_labels"],
                documents["validation"],
            )
    return expected_size(registry, name)


def expected_size(registry: Registry, name: str) -> Size:
    """Size of a data set as the registry expects it; 0 where it does not say."""
    dataset = registry.dataset(name)
    expected = dataset.expected
    published = expected.get("train_all", 0)
    validation = expected.get("validation", round(dataset.validation * published))
    train = expected.get("train", published - validation)
    return Size(max(train, 0), expected.get("test", 0), expected.get("labels", 0), validation)


def encoder_size(encoder: EncoderConfig, model: Path | str, registry: Registry) -> tuple[int, int]:
    """H and the number of parameters: of the fetched `model`, else of the registry."""
    known = registry.models.get(encoder.model_name)
    hidden = (known and known.hidden_size) or HIDDEN
    path = Path(model) / "config.json"
    if path.is_file():
        described = read_json(path)
        with reading(path, "the configuration of a pretrained encoder"):
            # DistilBERT calls it dim, T5 d_model
            names = [name for name in ("hidden_size", "dim", "d_model") if name in described]
            hidden = int(described[names[0]]) if names else hidden
    return hidden, (known and known.parameters) or TRANSFORMER_PARAMETERS


def _plan(
    grid: GridConfig,
    registry: Registry,
    key: RunKey,
    size: Size,
    finished: Mapping[RunKey, Mapping[str, Any] | None],
    benchmarks: Benchmarks,
) -> RunPlan:
    trained = method(key.method).kind == "trained"
    config = grid.resolve(key) if trained else None
    on_gpu = config is not None and config.training.device == "cuda"
    disk = size.test * PREDICTIONS * 8
    disk += 4 * stored_weights(config, size, registry) if config else 0
    similar = _similar(key, finished)
    if similar:
        seconds = statistics.median(_seconds(resources, config) for resources in similar)
        memory = max(max(resources["peak_bytes"].values()) for resources in similar)
        return RunPlan(key, is_finished(grid, key), "measured", seconds, on_gpu, memory, disk)
    if config is None:
        seconds = START_SECONDS + LINEAR_SECONDS_PER_LABEL * size.labels
        return RunPlan(key, False, "model", seconds, False, BASE_MEMORY * 2, disk)
    if size.train and (key.dataset, key.method) in benchmarks:
        step = benchmarks[key.dataset, key.method]
        seconds = START_SECONDS + step.seconds_per_step * steps_of_run(config, size)
        return RunPlan(key, False, f"benchmark {step.device}", seconds, on_gpu, None, disk)
    if on_gpu or not size.train:
        return RunPlan(key, False, "not measured", None, on_gpu, None, disk)
    seconds, memory = model_of_run(config, size, registry)
    return RunPlan(key, False, "model", seconds, on_gpu, memory, disk)


def steps_of_run(config: RunConfig, size: Size) -> float:
    """Training steps, with a third of one for each batch of an evaluation."""
    training = config.training
    validations = training.epochs / training.validate_every
    evaluated = validations * size.validation + size.test
    return (training.epochs * size.train + evaluated / 3) / training.batch_size


def model_of_run(config: RunConfig, size: Size, registry: Registry) -> tuple[float, int]:
    """Seconds and peak bytes of a run by the cost model."""
    training = config.training
    device = "cuda" if training.device == "cuda" else "cpu"
    hidden, parameters = encoder_size(config.encoder, config.inputs.model, registry)
    operations = 6 * size.labels * hidden
    if config.encoder.kind == "transformer":
        operations += 6 * parameters * config.encoder.max_len
    rate = RATE[device] * (training.threads if device == "cpu" else 1)
    steps = -(-size.train // training.batch_size)
    epoch = size.train * operations / rate + steps * STEP_SECONDS[device]
    test = size.test * operations / 3 / rate
    seconds = START_SECONDS + training.epochs * epoch + test
    weights = size.labels * hidden * 4
    logits = training.batch_size * size.labels * 4
    # weights, gradient, momentum, mask; logits, targets and their gradient
    memory = BASE_MEMORY + 4 * weights + 3 * logits
    return seconds, memory


def stored_weights(config: RunConfig, size: Size, registry: Registry) -> int:
    """Elements of model.safetensors, without the embeddings of small encoders."""
    layer = config.layer
    hidden, parameters = encoder_size(config.encoder, config.inputs.model, registry)
    width = (
        layer.fan_in if layer.pattern in ("group_fan_in", "block_sparse", "bottleneck") else None
    )
    encoder = parameters if config.encoder.kind == "transformer" else 0
    return encoder + size.labels * (width or hidden)


def _is_trained(key: RunKey, dataset: str) -> bool:
    return key.dataset == dataset and method(key.method).kind == "trained"


def read_benchmarks(grid: GridConfig) -> Benchmarks:
    """The scale benchmark of the first device, by name, that has a data set and method."""
    benchmarks: dict[tuple[str, str], Benchmark] = {}
    for path in sorted(grid.layout.benchmarks.glob(f"*/{BENCHMARK}")):
        with reading(path, "the scale benchmark"), path.open(encoding="utf-8", newline="") as file:
            for row in map(renamed_columns, csv.DictReader(file)):
                if row.get("seconds_per_step"):
                    documents = int(row.get("batch") or 0) * int(row.get("steps_per_epoch") or 0)
                    step = Benchmark(path.parent.name, float(row["seconds_per_step"]), documents)
                    benchmarks.setdefault((row["dataset"], row["method"]), step)
    return benchmarks


def _seconds(resources: Mapping[str, Any], config: RunConfig | None) -> float:
    """Seconds of a run with the epochs of `config`, from the resources of a finished one."""
    seconds = resources["seconds"]
    fixed = START_SECONDS + seconds.get("setup", 0.0) + seconds.get("evaluate", 0.0)
    if config is None or "epoch" not in seconds:
        return fixed + seconds.get("train", 0.0)
    return fixed + seconds["epoch"] * config.training.epochs


def _similar(
    key: RunKey, finished: Mapping[RunKey, Mapping[str, Any] | None]
) -> list[Mapping[str, Any]]:
    """Resources of finished runs like this one: itself, else other seeds, else other variants."""
    for same in (
        lambda other: other == key,
        lambda other: other.variant == key.variant,
        lambda _: True,
    ):
        similar = [
            resources
            for other, resources in finished.items()
            if resources
            and (other.dataset, other.method) == (key.dataset, key.method)
            and same(other)
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
