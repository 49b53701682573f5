"""Counts of data sets and encoders, and what training them takes: by the scale benchmark, or a cost model.

The model counts multiplications. A step multiplies a [B, L] and a [B, H] or [L, H] matrix three
times (logits, gradient of the features, gradient of the weights), 2 operations each; a transformer
does 6 operations per parameter and token. Both are divided by the rates below, and the evaluation of a
batch of validation or test documents takes a third of a step. Sparse patterns count as dense: on a CPU
they are masked dense products or gathers that cost about as much. The model is right within a factor of
two on a CPU and three on a GPU; one finished run of a method replaces it for the others.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from haste.config import EncoderConfig, RunConfig
from haste.data.registry import Registry
from haste.data.synthetic import planned
from haste.files import read_json, reading
from haste.former_names import renamed_columns
from haste.grid import GridConfig
from haste.labels.split import head_size
from haste.pretrained import hidden_size
from haste.settings import naming

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
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3": 1}
"""of an element, by its dtype in a configuration"""
INDEX_BYTES = 4
PREDICTIONS = 100
"""label ids and scores per test document"""
TEXT_BYTES = 6
"""of a word and a blank, as fetched and once more in the corpus"""
BENCHMARK = "scale.csv"
"""columns dataset, method, seconds_per_step; batch and steps_per_epoch say how many documents a data set
has; there may be more"""


@dataclass(frozen=True)
class Size:
    """Numbers of documents and labels of a data set; 0 where unknown."""

    train: int
    test: int
    labels: int
    validation: int = 0

    @property
    def documents(self) -> int:
        """Of all splits."""
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class Benchmark:
    """A row of the scale benchmark."""

    device: str
    seconds_per_step: float
    documents: int
    """of training, about; 0 where the row does not say"""

    def seconds(self, config: RunConfig, size: Size) -> float:
        """Of a run, each batch of an evaluation counting as a third of a step."""
        training = config.training
        epochs = training.epochs_on(size.train)
        validations = epochs / training.validate_every
        evaluated = validations * size.validation + size.test
        steps = (epochs * size.train + evaluated / 3) / training.batch_size
        return START_SECONDS + self.seconds_per_step * steps


Benchmarks = Mapping[str, Mapping[str, Benchmark]]
"""by data set, by method"""


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
    """Size of a data set as the registry expects it; 0 where it does not say.

    Raises ConfigError for one that is to be generated and cannot be.
    """
    dataset = registry.dataset(name)
    expected: dict[str, int] = {str(key): count for key, count in dataset.expected.items()}
    if dataset.synth:
        with naming(Path(f"datasets.{name}")):
            plan = planned(**{str(option): value for option, value in dataset.synth.items()})
        counts = {"train_all": plan.documents, "test": plan.test_documents, "labels": plan.labels}
        expected = {**counts, **expected}
    published = expected.get("train_all", 0)
    validation = expected.get("validation", round(dataset.validation * published))
    train = expected.get("train", published - validation)
    return Size(max(train, 0), expected.get("test", 0), expected.get("labels", 0), validation)


def encoder_size(encoder: EncoderConfig, model: Path | str, registry: Registry) -> tuple[int, int]:
    """H and the number of parameters: of the fetched `model`, else of the registry."""
    known = registry.models.get(encoder.model_name)
    hidden = (known and known.hidden_size) or HIDDEN
    if (Path(model) / "config.json").is_file():
        hidden = hidden_size(Path(model), encoder.kind) or hidden
    return hidden, (known and known.parameters) or TRANSFORMER_PARAMETERS


def placed(config: RunConfig, *, gpu: bool) -> RunConfig:
    """The run with the device that `auto` means where it is to be trained; `gpu`: whether there is one."""
    if config.training.device != "auto":
        return config
    return replace(config, training=replace(config.training, device="cuda" if gpu else "cpu"))


def known_size(size: Size, dataset: str, benchmarks: Benchmarks) -> Size:
    """With the documents of the scale benchmark where nobody else says how many there are."""
    if size.train:
        return size
    known = benchmarks.get(dataset, {}).values()
    return replace(size, train=max((benchmark.documents for benchmark in known), default=0))


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
    seconds = START_SECONDS + training.epochs_on(size.train) * epoch + test
    weights = size.labels * hidden * 4
    logits = training.batch_size * size.labels * 4
    # weights, gradient, momentum, mask; logits, targets and their gradient
    memory = BASE_MEMORY + 4 * weights + 3 * logits
    return seconds, memory


def linear_seconds(size: Size) -> float:
    """Of a linear baseline, by the cost model."""
    return LINEAR_SECONDS_PER_LABEL * size.labels


def model_bytes(config: RunConfig, size: Size, registry: Registry, *, momenta: bool = False) -> int:
    """Bytes of model.safetensors, or with `momenta` of a checkpoint: encoder and output layer, without the
    embeddings of small encoders and the projection between the two."""
    hidden, parameters = encoder_size(config.encoder, config.inputs.model, registry)
    encoder = (
        parameters * BYTES[config.encoder.dtype] if config.encoder.kind == "transformer" else 0
    )
    if momenta:
        # Adam keeps two moments, and in bf16 what rounding lost
        encoder *= 4
    return encoder + layer_bytes(config, size.labels, hidden, momenta=momenta)


def layer_bytes(config: RunConfig, n_labels: int, n_features: int, *, momenta: bool = False) -> int:
    """Bytes of the output layer of L labels: weights, biases, index sets or mask, clusters, and with `momenta` what
    its optimiser keeps. `n_features`: H of the encoder."""
    layer, training = config.layer, config.training
    weight = BYTES[layer.dtype]
    # E4M3 is for weights alone
    bias = momentum = max(weight, BYTES["bfloat16"])
    adamw = training.optimizer == "adamw"
    kept = momenta * (momentum * (training.momentum > 0 or adamw) + BYTES["float32"] * adamw)

    def rows(labels: int, width: int) -> int:
        return labels * (width * (weight + kept) + bias + kept)

    if layer.pattern == "bottleneck":
        n_features = layer.fan_in
    elif layer.features == "projections":
        n_features *= 2
    width = n_features if layer.features == "shared" else n_features // 2
    head = head_size(n_labels, layer.head_ratio, layer.group_size)
    tail = n_labels - head
    total = rows(head, width)
    match layer.pattern:
        case "dense" | "bottleneck":
            total += rows(tail, width)
        case "unstructured":
            # a byte of the mask for each weight
            total += rows(tail, width) + tail * width
        case "label_tree":
            for _ in range(layer.tree_levels + 1):
                total += rows(tail, width)
                tail = -(-tail // layer.group_size)
        case _:
            group = 1 if layer.pattern == "fixed_fan_in" else layer.group_size
            block = layer.block_size if layer.pattern == "block_sparse" else 1
            indices = -(-tail // group) * (layer.fan_in // block)
            total += rows(tail, layer.fan_in) + INDEX_BYTES * indices
    if config.auxiliary.scale > 0:
        clusters = -(-n_labels // config.auxiliary.cluster_size)
        total += rows(clusters, n_features) + INDEX_BYTES * n_labels
    return total


def read_benchmarks(grid: GridConfig) -> Benchmarks:
    """The scale benchmark of the first device, by name, that has a data set and method."""
    benchmarks: dict[str, dict[str, Benchmark]] = {}
    for path in sorted(grid.layout.benchmarks.glob(f"*/{BENCHMARK}")):
        with reading(path, "the scale benchmark"), path.open(encoding="utf-8", newline="") as file:
            for row in map(renamed_columns, csv.DictReader(file)):
                if row.get("seconds_per_step"):
                    documents = int(row.get("batch") or 0) * int(row.get("steps_per_epoch") or 0)
                    step = Benchmark(path.parent.name, float(row["seconds_per_step"]), documents)
                    benchmarks.setdefault(row["dataset"], {}).setdefault(row["method"], step)
    return benchmarks
