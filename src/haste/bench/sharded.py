"""One run on several GPUs: steps of one rank and of all, against each other, and the labels that fit.

The models and documents are those of the scale benchmark. A row is timed only after the sharded layer's loss
and dX have been compared with those of the whole layer on one rank.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from haste.bench.judgement import relative_error
from haste.bench.rows import rounded
from haste.bench.scale import DEFAULT, ScaleRow, workload_of
from haste.bench.training_steps import GIB, average_seconds, forget_peak, measure
from haste.bench.workload import Workload
from haste.data.batches import batch_positives
from haste.distributed import ALONE, Exchange, Ranks
from haste.errors import KernelError
from haste.files import write_json, write_rows
from haste.grid import GridConfig
from haste.kernels.state import Positives, StepContext
from haste.layers.base import LayerOptions, OutputLayer
from haste.layers.build import build_layer, build_projection
from haste.layers.sharded import Shard
from haste.layers.sparse import Sparse
from haste.resources import machine

log = logging.getLogger(__name__)

DATASETS = ("Amazon-3M", "LF-Paper2Keywords-8.6M")
COLUMNS = (
    "dataset",
    "scaling",
    "ranks",
    "labels",
    "batch",
    "seconds_per_step",
    "efficiency",
    "encoder_seconds",
    "layer_seconds",
    "rest_seconds",
    "gradient_sum_seconds",
    "rewire_seconds",
    "topk_seconds",
    "peak_allocated_gib",
    "used_gib",
    "layer_gib",
    "loss",
    "loss_error",
    "dx_error",
    "unequal_weights",
    "note",
)
"""`scaling`: `one` rank alone; `batch`, the same batch over all ranks; `batch_per_rank`, a batch as many times as
large; `labels`, of an output layer alone. `efficiency`: the time of one rank over that of all, times their
number where the batch is the same. `..._gib`: of the GPU with most, `used_gib` with its
libraries and what is cached;
`loss`: of the last step, that of one rank but for the encoder's dropout where the batch is the same;
`gradient_sum_seconds`: of summing the encoder's gradients over ranks, a part of encoder_seconds; errors:
relative, of the sharded layer's loss and dX; `unequal_weights`: share of weights that differ after GATE_STEPS"""
GATE_STEPS = 3
MOST_ERROR = {"loss_error": 1e-4, "dx_error": 2e-2}
"""of sums of the same bf16 products in another order"""
GOAL_LABELS = 400_000_000
FAN_IN, GROUP_SIZE, FEATURES, BATCH = 64, 32, 768, 128
"""of the layer of which the most labels are found, in bf16 without momentum"""
BYTES_PER_LABEL = 2 * FAN_IN + 2 + 4 * FAN_IN // GROUP_SIZE
HEADROOM = 3 * GIB
"""of a GPU's memory for what a step needs beside weights and indices"""
STEP_BACK = 0.95
"""the next number of labels, after one that did not fit"""
LABEL_STEPS = 5


@dataclass(frozen=True)
class Bench:
    """Where results go, and who measures."""

    out: Path
    """.csv; beside it the machine as .json"""
    ranks: Ranks
    device: torch.device

    def run(
        self,
        workloads: dict[str, Workload],
        labels: Sequence[int],
        seconds: float | None = None,
    ) -> None:
        """Measure `workloads` by data set, a layer of each number of `labels`, and one of as many as fit;
        0 in `labels` stands for that. Nothing begins after `seconds`."""
        begin = time.perf_counter()
        records: list[dict[str, Any]] = []

        def add(measured: Callable[[], list[dict[str, Any]]]) -> None:
            spent = self.ranks.agree(lambda: time.perf_counter() - begin, on_first=True)
            if seconds is not None and spent > seconds:
                return
            records.extend(measured())
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if self.ranks.first:
                write_rows(self.out, COLUMNS, map(rounded, records))
                log.info("%s (%.0f s)", rounded(records[-1]), time.perf_counter() - begin)

        if self.ranks.first:
            described = {**machine(), "ranks": self.ranks.size}
            write_json(self.out.with_suffix(".json"), described)
        for name, workload in workloads.items():
            add(partial(self.steps, name, workload))
        for number in labels:
            add(partial(self.labels, number))

    def steps(self, dataset: str, workload: Workload) -> list[dict[str, Any]]:
        """The rows of a data set, after the check of its layer."""
        size = self.ranks.size
        batch = workload.config.training.batch_size
        larger = replace(workload.config.training, batch_size=size * batch)
        weak = replace(workload, config=replace(workload.config, training=larger))
        errors = self.ranks.agree(lambda: self._checked(dataset, workload))
        one = self.ranks.agree(lambda: self._measured(workload, ALONE), on_first=True)
        rows = [{"scaling": "one", "ranks": 1, "efficiency": 1.0, **one}]
        for scaling, scaled in (("batch", workload), ("batch_per_rank", weak)):
            of_rank = self.ranks.collect(self._measured(scaled, self.ranks))
            row = {name: max(measured[name] for measured in of_rank) for name in of_rank[0]}
            share = size if scaling == "batch" else 1
            efficiency = one["seconds_per_step"] / row["seconds_per_step"] / share
            rows.append(
                {"scaling": scaling, "ranks": size, "efficiency": efficiency, **row, **errors}
            )
        return [{"dataset": dataset, **row} for row in rows]

    def _measured(self, workload: Workload, ranks: Ranks) -> dict[str, Any]:
        # the model before may be in reference cycles
        gc.collect()
        values, _ = measure(workload, self.device, ranks)
        values["used_gib"] = self._used() / GIB
        return {name: value for name, value in values.items() if name in COLUMNS}

    def _checked(self, dataset: str, workload: Workload) -> dict[str, float]:
        """Errors of the sharded layer against the whole one; raises KernelError where they are too large."""
        config, ranks, device = workload.config, self.ranks, self.device
        hidden = workload.architecture.hidden_size
        n_features = getattr(build_projection(config, hidden), "out_features", hidden)

        def build(ranks: Ranks) -> OutputLayer:
            return build_layer(config, n_features, workload.order, device, ranks=ranks)

        whole, part = build(ALONE), build(ranks)
        batch = config.training.batch_size
        drawn = batch_positives(workload.documents()[1], np.arange(batch))
        positives = Positives(
            *(torch.from_numpy(values).to(device) for values in (drawn.label_row, drawn.doc))
        )
        random = torch.Generator(device).manual_seed(0)
        errors = dict.fromkeys(MOST_ERROR, 0.0)
        for step in range(GATE_STEPS):
            features = torch.randn(batch, n_features, generator=random, device=device)
            features = features.mul_(0.25).to(torch.bfloat16)
            local = features[ranks.documents(np.arange(batch))]
            exchange = Exchange(ranks, local, batch)
            exchange.gather()
            context = StepContext(1e-3, config.seed, step)
            result = part.step(exchange.features, positives, context)
            loss, dx = exchange.scatter(result.loss, result.dx)
            dx = ranks.stack(dx).flatten(0, 1)[:batch]
            want = whole.step(features, positives, context)
            errors["loss_error"] = max(
                errors["loss_error"], relative_error(loss, want.loss.double())
            )
            errors["dx_error"] = max(errors["dx_error"], relative_error(dx, want.dx.double()))
        unequal = _unequal(whole, part)
        log.info("%s, rank %d: %s, weights that differ %.2g", dataset, ranks.rank, errors, unequal)
        for name, error in errors.items():
            if not error <= MOST_ERROR[name]:
                raise KernelError(
                    f"{dataset}: {name} of the sharded layer is {error:.3g}, more than {MOST_ERROR[name]:g}; "
                    "it is not timed."
                )
        return {**errors, "unequal_weights": unequal}

    def labels(self, number: int) -> list[dict[str, Any]]:
        """The row of an output layer of `number` labels over all ranks; of as many as fit for 0."""
        if number:
            row = self._layer_steps(number)
            return [row or {"scaling": "labels", "labels": number, "note": "out of memory"}]
        free = torch.cuda.mem_get_info(self.device)[0]
        free = min(self.ranks.collect(free)) - HEADROOM
        most: float = free // BYTES_PER_LABEL * self.ranks.size
        while (row := self._layer_steps(int(most) // 1_000_000 * 1_000_000)) is None:
            log.info("%d labels do not fit", most)
            most *= STEP_BACK
        return [{**row, "note": "most that fit"}]

    def _layer_steps(self, number: int) -> dict[str, Any] | None:
        """The row of a layer of `number` labels; None where it does not fit on a rank."""
        seconds, fits = 0.0, True
        forget_peak(self.device)
        try:
            seconds, layer_bytes, peak = self._steps_of_layer(number)
        except torch.OutOfMemoryError:
            fits = False
        gc.collect()
        forget_peak(self.device)
        if not all(self.ranks.collect(fits)):
            return None
        return {
            "scaling": "labels",
            "ranks": self.ranks.size,
            "labels": number,
            "batch": BATCH,
            "seconds_per_step": max(self.ranks.collect(seconds)),
            "layer_gib": max(self.ranks.collect(layer_bytes)) / GIB,
            "peak_allocated_gib": max(self.ranks.collect(peak)) / GIB,
        }

    def _steps_of_layer(self, number: int) -> tuple[float, int, int]:
        """Seconds of a step of this rank's part, its bytes and the peak of allocated ones. The ranks exchange
        nothing here: one of them may have no memory left."""
        random = torch.Generator(self.device).manual_seed(0)
        on_gpu = self.device.type == "cuda"
        options = LayerOptions(dtype=torch.bfloat16, backend="triton" if on_gpu else "torch")
        rows = Sparse(
            FEATURES, number, FAN_IN, options, random, group_size=GROUP_SIZE, ranks=self.ranks
        )
        layer: OutputLayer = Shard(rows) if self.ranks.size > 1 else rows
        features = torch.randn(BATCH, FEATURES, generator=random, device=self.device).bfloat16()
        label = torch.randint(number, (9 * BATCH,), generator=random, device=self.device)
        label = label.sort().values.int()
        doc = torch.arange(len(label), device=self.device, dtype=torch.int32) % BATCH
        count = iter(range(1 + LABEL_STEPS))

        def step() -> Tensor:
            context = StepContext(1e-3, 0, next(count))
            return layer.step(features, Positives(label, doc), context).loss

        step()
        seconds = average_seconds(step, LABEL_STEPS, self.device)
        return seconds, layer.layer_bytes(), torch.cuda.max_memory_allocated() if on_gpu else 0

    def _used(self) -> int:
        """Bytes of the GPU that are in use, those of libraries too."""
        if self.device.type != "cuda":
            return 0
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free


def workloads(grid: GridConfig, datasets: Sequence[str]) -> dict[str, Workload]:
    """What is trained of each data set: HASTE with the preset `default`."""
    by_name = {name: workload_of(ScaleRow(name, "haste", DEFAULT), grid) for name in datasets}
    return {name: replace(workload, profiled=False) for name, workload in by_name.items()}


def _unequal(whole: OutputLayer, part: OutputLayer) -> float:
    """The share of a part's elements that are not those of the whole layer."""
    unequal = total = 0
    values = part.state_dict()
    for name, rows in part.row_ranges().items():
        expected = whole.state_dict()[name][rows.begin : rows.end]
        unequal += int((values[name] != expected).sum())
        total += expected.numel()
    return unequal / max(total, 1)
