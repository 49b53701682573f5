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
import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from triton.errors import TritonError

from haste import patterns
from haste.bench.documents import PublishedStatistics, draw_labels, draw_tokens, statistics
from haste.bench.rows import slug, write_rows
from haste.commit import CHANGED
from haste.config import RunConfig
from haste.data.batches import EpochBatches
from haste.encoders.registry import DTYPES
from haste.encoders.transformer import TransformerEncoder
from haste.errors import ConfigError, KernelError
from haste.files import read_json, write_json
from haste.former_names import renamed_columns
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
from haste.labels.order import LabelOrder
from haste.labels.split import head_size
from haste.model import Model, assemble
from haste.resources import machine
from haste.training import loader
from haste.training.step import ENCODER, LAYER, REST, TrainStep

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
METHODS = ("haste", "elmo-bf16", "spartex", "bottleneck", "fixed-fan-in")
SPEED, MEMORY = "speed", "memory"
PRESETS: dict[str, dict[str, dict[str, bool]]] = {
    SPEED: {"training": {"group_by_length": True}},
    MEMORY: {"encoder": {"gradient_checkpointing": True, "optimizer_in_backward": True}},
}
"""changes of a run's settings, by section"""
SWEEP = "sweep"
SWEEP_LIKE = "LF-Paper2Keywords-8.6M"
"""the data set whose hyper-parameters the sweep has, with the preset `memory`"""
SWEEP_LABELS = (131_073, 670_091, 2_812_281, 8_623_847, 25_000_000, 50_000_000, 100_000_000)
SWEEP_BEYOND = (200_000_000, 400_000_000, 800_000_000)
"""larger sizes of the sweep, for HASTE only"""
SWEEP_MOST = 8_623_847
"""largest number of labels of the other methods in the sweep"""
STEPS, SWEEP_STEPS = 12, 2
"""timed steps of a row"""
TOP, TOPK_BATCH = 100, 256
KERNELS_SHOWN = 15
GIB = 2**30


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


@dataclass(frozen=True)
class Workload:
    """What a row trains."""

    config: RunConfig
    statistics: PublishedStatistics
    architecture: Any
    """transformers' configuration of the encoder"""
    steps: int = STEPS
    profiled: bool = False


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
        return [ScaleRow(SWEEP, name, MEMORY, size) for name in swept for size in sizes]

    rows = [
        *all_datasets(ours, SPEED),
        *all_datasets(ours, MEMORY),
        *all_datasets(others, SPEED),
        *sweep(ours, SWEEP_LABELS),
        *all_datasets(others, MEMORY),
        *sweep(others, [size for size in SWEEP_LABELS if size <= SWEEP_MOST]),
        *sweep(ours, SWEEP_BEYOND),
    ]
    return patterns.select(rows, only, "dataset/method/preset")


def workload_of(row: ScaleRow, grid: GridConfig) -> Workload:
    """The run of the grid that a row stands for; raises ConfigError for an unknown encoder or data
    set."""
    like = SWEEP_LIKE if row.dataset == SWEEP else row.dataset
    config = grid.resolve(RunKey(like, row.method, DEFAULT_VARIANT, 0))
    for section, changes in PRESETS[row.preset].items():
        config = replace(config, **{section: replace(getattr(config, section), **changes)})
    published, shape = statistics(like), architecture(config.encoder.model_name)
    if row.labels is None:
        return Workload(config, published, shape, profiled=row.method == METHODS[0])
    return Workload(config, replace(published, labels=row.labels), shape, SWEEP_STEPS)


def architecture(model: str) -> Any:
    """The configuration of a pretrained encoder, by its name; raises ConfigError for an unknown one."""
    from transformers import BertConfig, RobertaConfig

    if model == "bert-base-uncased":
        return BertConfig()
    if model == "paraphrase-distilroberta-base-v2":
        return RobertaConfig(
            vocab_size=50_265, num_hidden_layers=6, max_position_embeddings=514, type_vocab_size=1
        )
    raise ConfigError(
        f"encoder.model: {model} has no shape in the scale benchmark; use bert-base-uncased or "
        "paraphrase-distilroberta-base-v2."
    )


def bench(
    out: Path,
    grid: GridConfig,
    rows: Sequence[ScaleRow],
    *,
    seconds: float | None = None,
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
    for number, row in enumerate(rows):
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
        write_rows(folder / "scale.csv", COLUMNS, _rounded(records))
        write_rows(folder / "scale_profile.csv", PROFILE_COLUMNS, _rounded(profiles))
        log.info("%s", _summary(record, time.perf_counter() - begin - spent))
    return folder / "scale.csv"


def measure(
    workload: Workload, device: torch.device
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The values of one row, by the names of COLUMNS, and the kernels that take most of a step."""
    config = workload.config
    batch = config.training.batch_size
    model = build(workload, device)
    steps = -(-workload.statistics.documents // batch)
    train_step = TrainStep(config, model, steps * config.training.epochs)
    model.train(True)
    feed = _Feed(workload, device)
    clock, count = Clock(device), workload.steps
    # the first pass compiles kernels, which takes memory; the second fills the allocator's cache and
    # captures graphs; the third is timed
    _run(train_step, feed, range(count))
    if train_step.graphs is not None:
        # so that the memory of graphs is counted in the second pass, which captures them again
        train_step.graphs.forget()
    _forget_peak(device)
    _run(train_step, feed, range(count, 2 * count))
    _synchronize(device)
    start = time.perf_counter()
    _run(train_step, feed, range(2 * count, 3 * count), clock.begins)
    _synchronize(device)
    seconds_per_step = (time.perf_counter() - start) / count
    parts = {part: seconds / count for part, seconds in clock.seconds().items()}
    steps_peak = _peak(device)
    rewire_seconds = _rewire(train_step, feed, device)
    rewire_peak = _peak(device)
    topk_seconds, topk_bytes = _topk(model, device)
    values = {
        "labels": workload.statistics.labels,
        "batch": batch,
        "max_len": config.encoder.max_len,
        "tokens_per_step": round(feed.tokens_per_step()),
        "padded_tokens_per_step": round(feed.padded_tokens_per_step()),
        "seconds_per_step": seconds_per_step,
        "encoder_seconds": parts[ENCODER],
        "layer_seconds": parts[LAYER],
        "rest_seconds": seconds_per_step - parts[ENCODER] - parts[LAYER],
        "rewire_seconds": rewire_seconds,
        "topk_seconds": topk_seconds,
        "topk_gib": topk_bytes / GIB,
        "epoch_minutes": steps * seconds_per_step / 60,
        "peak_allocated_gib": max(steps_peak[0], rewire_peak[0]) / GIB,
        "peak_reserved_gib": max(steps_peak[1], rewire_peak[1]) / GIB,
        "steps_allocated_gib": steps_peak[0] / GIB,
        "rewire_allocated_gib": rewire_peak[0] / GIB,
        "layer_gib": model.layer.layer_bytes() / GIB,
        "layer_share": parts[LAYER] / seconds_per_step,
        "steps_per_epoch": steps,
        "momentum": config.training.momentum,
    }
    kernels: list[dict[str, Any]] = []
    if workload.profiled and device.type == "cuda":
        total, kernels = _profile(train_step, feed, count)
        values["busy_share"] = total / seconds_per_step if total else None
        places = _synchronizations(train_step, feed)
        values["synchronizations_per_step"] = len(places)
        if places:
            log.warning("a step synchronizes with the GPU at %s", ", ".join(places))
    return values, kernels


def build(workload: Workload, device: torch.device) -> Model:
    """The model of a row, with random weights."""
    config = workload.config
    encoder = TransformerEncoder(
        random_transformer(
            workload.architecture, DTYPES[config.encoder.dtype], device, config.encoder.attention
        ),
        config.encoder.pooling,
        gradient_checkpointing=config.encoder.gradient_checkpointing,
    )
    labels = np.arange(workload.statistics.labels, dtype=np.int32)
    order = LabelOrder(labels, _head(workload), config.layer.group_size)
    auxiliary: dict[str, Any] = {}
    if config.auxiliary.scale > 0:
        # at its full weight, as at the start of a run
        auxiliary["clusters"] = labels // config.auxiliary.cluster_size
        auxiliary["auxiliary_scale"] = lambda _: config.auxiliary.scale
    return assemble(config, encoder, order, **auxiliary)


def random_transformer(
    shape: Any, dtype: torch.dtype, device: torch.device, attention: str
) -> nn.Module:
    """An untrained model of transformers; `attention` as encoder.attention."""
    from transformers import AutoModel

    from haste.encoders.attention import implementation

    with device:
        model = AutoModel.from_config(
            shape, dtype=dtype, attn_implementation=implementation(attention)
        )
        return model.to(device)


class Clock:
    """Seconds of the parts of steps, by events on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: list[tuple[str, Any]] = []

    def begins(self, part: str) -> None:
        """A part begins; the one before it ends."""
        if self.device.type != "cuda":
            self._marks.append((part, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append((part, event))

    def seconds(self) -> dict[str, float]:
        """Seconds by part since the last call."""
        self.begins(REST)
        _synchronize(self.device)
        seconds = dict.fromkeys((ENCODER, LAYER, REST), 0.0)
        for (part, before), (_, after) in itertools.pairwise(self._marks):
            on_gpu = self.device.type == "cuda"
            seconds[part] += before.elapsed_time(after) / 1e3 if on_gpu else after - before
        self._marks.clear()
        return seconds


class _Feed:
    """Random documents, as many as the steps of a row take."""

    def __init__(self, workload: Workload, device: torch.device) -> None:
        config, published = workload.config, workload.statistics
        random = np.random.default_rng(config.seed)
        self.device = device
        n = config.training.batch_size * workload.steps
        vocabulary = workload.architecture.vocab_size
        self.tokens = draw_tokens(published, n, config.encoder.max_len, vocabulary, random)
        self.labels = draw_labels(published, n, _head(workload), random)
        self.batches = EpochBatches.of(config, self.tokens)

    def rows(self) -> Iterator[np.ndarray]:
        return self.batches.rows(0)

    def tokens_per_step(self) -> float:
        return len(self.tokens.values) / len(self.batches)

    def padded_tokens_per_step(self) -> float:
        lengths = self.tokens.lengths()
        return float(np.mean([len(rows) * lengths[rows].max() for rows in self.rows()]))


def _run(
    train_step: TrainStep,
    feed: _Feed,
    steps: Sequence[int],
    begins: Callable[[str], None] | None = None,
) -> None:
    """Take the given steps, on the same batches each time."""
    rows = itertools.islice(feed.rows(), len(steps))
    padding = train_step.padding(feed.labels)
    with loader.batches(feed.tokens, feed.labels, rows, None, feed.device, padding) as batches:
        for number, batch in zip(steps, batches, strict=True):
            train_step(batch, number, begins)


def _rewire(step: TrainStep, feed: _Feed, device: torch.device) -> float:
    """Seconds that a rewiring adds to a step, of the second of two; peak memory is that of both."""
    _forget_peak(device)
    last = step.config.rewire.interval - 1
    clock = Clock(device)
    for _ in range(2):
        _run(step, feed, [last], clock.begins)
        seconds = clock.seconds()[REST]
    return seconds


def _topk(model: Model, device: torch.device) -> tuple[float, int]:
    """Seconds of topk for a batch, of the second of two, and the bytes that it allocates."""
    features = torch.randn(TOPK_BATCH, model.layer.n_features, device=device)
    features = features.to(next(model.encoder.parameters()).dtype)
    _forget_peak(device)
    before = _peak(device)[0]
    for _ in range(2):
        _synchronize(device)
        start = time.perf_counter()
        model.layer.topk(features, TOP)
        _synchronize(device)
    return time.perf_counter() - start, _peak(device)[0] - before


def _profile(step: TrainStep, feed: _Feed, count: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds per step in kernels, and rows of those that take most."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        _run(step, feed, range(count))
        _synchronize(feed.device)
    events = [event for event in profiler.key_averages() if event.device_type == DeviceType.CUDA]
    events.sort(key=lambda event: -event.self_device_time_total)
    rows = [
        {
            "kernel": event.key[:120],
            "calls_per_step": event.count / count,
            "milliseconds_per_step": round(event.self_device_time_total / count / 1e3, 4),
        }
        for event in events[:KERNELS_SHOWN]
    ]
    return sum(event.self_device_time_total for event in events) / count / 1e6, rows


def _synchronizations(step: TrainStep, feed: _Feed) -> list[str]:
    """Lines of code where a step synchronizes with the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            _run(step, feed, [0])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # setting the mode warns that it is a prototype
    return [
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "called a synchronizing" in str(warning.message)
    ]


def _measured(
    row: ScaleRow, workload: Workload, device: torch.device
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record of a row, also of one that does not fit, and rows of its profile."""
    names = {"dataset": row.dataset, "method": row.method, "preset": row.preset}
    record = {**dict.fromkeys(COLUMNS), **names, "labels": workload.statistics.labels}
    kernels: list[dict[str, Any]] = []
    try:
        values, kernels = measure(workload, device)
        record |= values
    except torch.OutOfMemoryError:
        record["note"] = f"out of memory ({_total(device) / GIB:.0f} GiB)"
    except (RuntimeError, TritonError, KernelError) as error:
        record["note"] = str(error).split("\n")[0]
        log.exception("%s: does not run", row.name)
        _check_gpu(row)
    # the model may be in reference cycles
    gc.collect()
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
    return tuple(
        [row for row in _read(folder / file) if _name(row) not in named]
        for file in ("scale.csv", "scale_profile.csv")
    )


def _name(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The key of a row; with labels only in the sweep, where several rows have the same name."""
    labels = row.get("labels") if row["dataset"] == SWEEP else None
    return (row["dataset"], row["method"], row["preset"], str(labels or ""))


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [renamed_columns(row) for row in csv.DictReader(stream)]


def _rounded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]


def _summary(record: dict[str, Any], took: float) -> str:
    name = "/".join(str(record[key]) for key in ("dataset", "method", "preset", "labels"))
    if record["note"]:
        return f"{name}: {record['note']} ({took:.0f} s)"
    return (
        f"{name}: {1e3 * record['seconds_per_step']:.2f} ms per step (encoder "
        f"{1e3 * record['encoder_seconds']:.2f}, layer {1e3 * record['layer_seconds']:.2f}), "
        f"{record['peak_allocated_gib']:.2f} GiB, measured in {took:.0f} s"
    )


def _head(workload: Workload) -> int:
    layer = workload.config.layer
    return head_size(workload.statistics.labels, layer.head_ratio, layer.group_size)


def _total(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    """Reset the peak, after freeing memory that is cached but unused."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> tuple[int, int]:
    """Peak bytes allocated and reserved; 0 on a CPU."""
    if device.type != "cuda":
        return 0, 0
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
