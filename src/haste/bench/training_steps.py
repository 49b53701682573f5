"""Time and memory of training steps, of rewiring and of finding the best labels."""

from __future__ import annotations

import itertools
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from haste.bench.workload import Workload
from haste.data.batches import EpochBatches
from haste.distributed import ALONE, Ranks
from haste.training import loader, optim
from haste.training.step import ENCODER, LAYER, REST, TrainStep

log = logging.getLogger(__name__)

TOP, TOPK_BATCH = 100, 256
KERNELS_SHOWN = 15
GIB = 2**30


def measure(
    workload: Workload, device: torch.device, ranks: Ranks = ALONE
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The values of a row, by the names of `scale.COLUMNS`, `loss`, and the kernels that take most of a step."""
    steps, count = TrainingSteps(workload, device, ranks), workload.steps
    config, model = workload.config, steps.model
    # the first pass compiles kernels, which takes memory; the second fills the allocator's cache and
    # captures graphs; the third is timed
    steps.run(range(count))
    if steps.step.graphs is not None:
        # so that the memory of graphs is counted in the second pass, which captures them again
        steps.step.graphs.forget()
    forget_peak(device)
    steps.run(range(count, 2 * count))
    synchronize(device)
    clock, start = Clock(device), time.perf_counter()
    steps.run(range(2 * count, 3 * count), clock.begins)
    synchronize(device)
    seconds_per_step = (time.perf_counter() - start) / count
    parts = {part: seconds / count for part, seconds in clock.seconds().items()}
    steps_peak, loss = _peak(), float(steps.loss)
    rewire_seconds = steps.rewire_seconds()
    rewire_peak = _peak()
    topk_seconds, topk_bytes = steps.topk()
    values: dict[str, Any] = {
        "labels": workload.statistics.labels,
        "batch": config.training.batch_size,
        "max_len": config.encoder.max_len,
        "tokens_per_step": round(steps.tokens_per_step()),
        "padded_tokens_per_step": round(steps.padded_tokens_per_step()),
        "seconds_per_step": seconds_per_step,
        "encoder_seconds": parts[ENCODER],
        "layer_seconds": parts[LAYER],
        "rest_seconds": seconds_per_step - parts[ENCODER] - parts[LAYER],
        "rewire_seconds": rewire_seconds,
        "topk_seconds": topk_seconds,
        "topk_gib": topk_bytes / GIB,
        "epoch_minutes": steps.per_epoch * seconds_per_step / 60,
        "peak_allocated_gib": max(steps_peak[0], rewire_peak[0]) / GIB,
        "peak_reserved_gib": max(steps_peak[1], rewire_peak[1]) / GIB,
        "steps_allocated_gib": steps_peak[0] / GIB,
        "rewire_allocated_gib": rewire_peak[0] / GIB,
        "layer_gib": model.layer.layer_bytes() / GIB,
        "layer_share": parts[LAYER] / seconds_per_step,
        "steps_per_epoch": steps.per_epoch,
        "momentum": config.training.momentum,
        "loss": loss,
    }
    if ranks.size > 1:
        values["gradient_sum_seconds"] = steps.gradient_sum_seconds()
    kernels: list[dict[str, Any]] = []
    if workload.profiled and device.type == "cuda":
        total, kernels = steps.profile()
        values["busy_share"] = total / seconds_per_step if total else None
        places = steps.synchronizations()
        values["synchronizations_per_step"] = len(places)
        if places:
            log.warning("a step synchronizes with the GPU at %s", ", ".join(places))
    return values, kernels


class TrainingSteps:
    """The steps of a workload, on the same batches each time, and what can be measured of them."""

    def __init__(self, workload: Workload, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.config, self.count, self.device = workload.config, workload.steps, device
        torch.manual_seed(self.config.seed)
        self.model = workload.build(device, ranks)
        self.per_epoch = -(-workload.statistics.documents // self.config.training.batch_size)
        self.step = TrainStep(self.config, self.model, self.per_epoch * self.config.training.epochs)
        self.model.train(True)
        self.tokens, self.labels = workload.documents()
        self.batches = EpochBatches.of(self.config, self.tokens)
        self.loss = torch.zeros((), device=device)
        """of the last step"""

    def run(self, steps: Sequence[int], begins: Callable[[str], None] | None = None) -> None:
        """Take the given steps."""
        rows = itertools.islice(self.batches.rows(0), len(steps))
        padding = self.step.padding(self.labels)
        with loader.batches(
            self.tokens, self.labels, rows, None, self.device, padding, self.model.ranks
        ) as batches:
            for number, batch in zip(steps, batches, strict=True):
                self.loss = self.step(batch, number, begins).loss

    def tokens_per_step(self) -> float:
        """Tokens of a batch, on average."""
        return len(self.tokens.values) / len(self.batches)

    def padded_tokens_per_step(self) -> float:
        """With the padding of batches that are replayed, else of each document to the longest of its batch."""
        lengths, padding = self.tokens.lengths(), self.step.padding(self.labels)

        def padded(sizes: np.ndarray) -> int:
            if padding is not None:
                return padding.tokens_of(sizes)
            return sizes.sum() if self.model.encoder.packed else len(sizes) * sizes.max()

        return float(np.mean([padded(lengths[rows]) for rows in self.batches.rows(0)]))

    def rewire_seconds(self) -> float:
        """What a rewiring adds to a step, of the second of two; peak memory is that of both."""
        forget_peak(self.device)
        last = self.config.rewire.interval - 1
        clock = Clock(self.device)
        for _ in range(2):
            self.run([last], clock.begins)
            seconds = clock.seconds()[REST]
        return seconds

    def topk(self) -> tuple[float, int]:
        """Seconds of topk for a batch, of the second of two, and the bytes that it allocates."""
        layer = self.model.layer
        features = torch.randn(TOPK_BATCH, layer.n_features, device=self.device)
        features = features.to(next(self.model.encoder.parameters()).dtype)
        forget_peak(self.device)
        before = _peak()[0]
        for _ in range(2):
            seconds = average_seconds(lambda: layer.topk(features, TOP), 1, self.device)
        return seconds, _peak()[0] - before

    def gradient_sum_seconds(self) -> float:
        """Of summing the encoder's gradients over ranks, a part of each step."""
        parameters = optim.parameters(self.step.optimizers)
        total = partial(self.model.ranks.sum_gradients, parameters)
        total()
        return average_seconds(total, self.count, self.device)

    def profile(self) -> tuple[float, list[dict[str, Any]]]:
        """Seconds per step in kernels, and rows of those that take most."""
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            self.run(range(self.count))
            synchronize(self.device)
        events = [
            event for event in profiler.key_averages() if event.device_type == DeviceType.CUDA
        ]
        events.sort(key=lambda event: -event.self_device_time_total)
        rows = [
            {
                "kernel": event.key[:120],
                "calls_per_step": event.count / self.count,
                "milliseconds_per_step": round(event.self_device_time_total / self.count / 1e3, 4),
            }
            for event in events[:KERNELS_SHOWN]
        ]
        return sum(event.self_device_time_total for event in events) / self.count / 1e6, rows

    def synchronizations(self) -> list[str]:
        """Lines of code where a step synchronizes with the GPU."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self.run([0])
            finally:
                torch.cuda.set_sync_debug_mode("default")
        # setting the mode warns that it is a prototype
        return [
            f"{Path(warning.filename).name}:{warning.lineno}"
            for warning in caught
            if "called a synchronizing" in str(warning.message)
        ]


class Clock:
    """Seconds of the parts of steps, by events on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._events: list[tuple[str, Any]] = []

    def begins(self, part: str) -> None:
        """A part begins; the one before it ends."""
        event: torch.cuda.Event | float
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        else:
            event = time.perf_counter()
        self._events.append((part, event))

    def seconds(self) -> dict[str, float]:
        """Seconds by part since the last call."""
        self.begins(REST)
        synchronize(self.device)
        seconds = dict.fromkeys((ENCODER, LAYER, REST), 0.0)
        for (part, before), (_, after) in itertools.pairwise(self._events):
            on_gpu = self.device.type == "cuda"
            seconds[part] += before.elapsed_time(after) / 1e3 if on_gpu else after - before
        self._events.clear()
        return seconds


def synchronize(device: torch.device) -> None:
    """Wait for what the device has to do."""
    torch.get_device_module(device).synchronize()


def average_seconds(call: Callable[[], object], times: int, device: torch.device) -> float:
    """Of so many calls, on average, with what they give the device to do."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / times


def forget_peak(device: torch.device) -> None:
    """Reset the peak, after freeing memory that is cached but unused."""
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> tuple[int, int]:
    """Peak bytes allocated and reserved on the GPU; 0 where none is used."""
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
