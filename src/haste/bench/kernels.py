"""The kernel benchmark: its rows, each checked, timed and written to a csv."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from triton.errors import TritonError

from haste.bench.cases import PLAIN_CUDA, RELEASED_CUDA, TIMED_PRODUCTS, WHAT, Case, build
from haste.bench.check import LARGE_LR, Judgement, judge
from haste.bench.problems import SHAPES, SWEEP, Problem, Shape, sweep_shapes
from haste.bench.reason import reason
from haste.bench.rows import slug
from haste.bench.timing import Gpu, Times
from haste.errors import KernelError
from haste.files import write_json, write_rows
from haste.progress import counting
from haste.selection import select

log = logging.getLogger(__name__)

COLUMNS = (
    "shape",
    "layer",
    "direction",
    "milliseconds",
    "low",
    "high",
    "batch",
    "features",
    "labels",
    "fan_in",
    "group_size",
    "dtype",
    "bytes",
    "terabytes_per_second",
    "share_of_copy",
    "state_mib",
    "peak_mib",
    "error",
    "gate",
    "what",
)
"""of kernels.csv: see `haste.report.benchmarks`"""
MOST_BANDWIDTH = 2.0
"""times the rate of a copy; what is quicker was not timed whole"""

PRODUCT_LAYERS = ("group_fan_in", "fixed_fan_in", "block_sparse", "bottleneck", "dense", "dense768")
STEP_LAYERS = (
    "haste",
    "group_fan_in",
    "group_fan_in_fp8",
    "fixed_fan_in",
    "block_sparse",
    "bottleneck",
    "dense768",
    "dense768_fp8",
    "naive_dense",
)
MOMENTUM_LAYERS = ("haste", "group_fan_in")
SWEEP_LAYERS = ("group_fan_in", "fixed_fan_in", "bottleneck")

GROUPED = ("group_fan_in", "block_sparse", "haste", RELEASED_CUDA)
"""layers that depend on the group size"""

Judge = Callable[[Case], Judgement]


@dataclass(frozen=True)
class KernelRow:
    """A row of kernels.csv to measure."""

    shape: Shape
    layer: str
    direction: str

    @property
    def name(self) -> str:
        """The name that --only matches."""
        return f"{self.shape.name}/{self.layer}/{self.direction}"


def plan(
    *,
    sweeps: bool = True,
    only: Sequence[str] = (),
    released: bool = False,
    plain: bool = False,
    shapes: Iterable[Shape] = SHAPES,
) -> list[KernelRow]:
    """The rows in the order of measurement; `released`: with those of the released extension;
    `plain`: of the plain CUDA fixed fan-in.

    `only`: patterns of shape/layer/direction, or the name of one of the three. Raises ConfigError for
    one that no row matches.
    """
    rows = [row for shape in shapes for row in _shape_rows(shape, released, plain)]
    if sweeps:
        rows += [row for shape in sweep_shapes() for row in _sweep_rows(shape)]
    return select(rows, only, "shape/layer/direction")


def bench(out: Path, rows: Sequence[KernelRow], timer: Gpu) -> Path:
    """Measure `rows` and write OUT/<device>/kernels.csv and machine.json; returns the csv's path.

    The files are rewritten after each shape, so finished rows are kept if a later row ends the process. A
    row that is wrong or does not run has no time.
    """
    machine = timer.describe()
    machine["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    folder = out / slug(machine["device"])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "machine.json", machine)
    path = folder / "kernels.csv"
    judged: dict[KernelRow, Judgement] = {}
    records: list[dict[str, object]] = []
    with counting("Measuring", len(rows)) as tick:
        for shape in dict.fromkeys(row.shape for row in rows):
            begin = time.perf_counter()
            records += measure_shape(
                shape,
                [row for row in rows if row.shape == shape],
                timer,
                machine["copy_terabytes_per_second"],
                judged,
            )
            write_rows(path, COLUMNS, records)
            log.info("%s: measured in %.0f s", shape.name, time.perf_counter() - begin)
            tick(len(records))
    return path


def measure_shape(
    shape: Shape,
    rows: Sequence[KernelRow],
    timer: Gpu,
    copy: float,
    judged: dict[KernelRow, Judgement],
    judge: Judge = judge,
) -> list[dict[str, object]]:
    """Records of the rows of one shape.

    `copy`: TB/s of the device's copy; `judged`: verdicts so far, by row without names and label
    counts, to which those of these rows are added.
    """
    small = Problem(shape.small(), timer.device, lr=LARGE_LR)
    problem = Problem(shape, timer.device)
    records = []
    for row in rows:
        key, measured = _key(row), None
        try:
            if key not in judged:
                judged[key] = judge(build(small, row.layer, row.direction))
            verdict = judged[key]
            if not verdict.passed:
                log.error(
                    "%s: %s is off by %.2g, more than %.2g: not timed",
                    row.name, verdict.result, verdict.error, verdict.bound,
                )  # fmt: skip
            else:
                case = build(problem, row.layer, row.direction)
                peak = timer.peak_bytes(case.run)
                measured = _measured(
                    case, timer.times(case.run, captured=case.captured), peak, copy
                )
        except (RuntimeError, TritonError, KernelError) as error:
            # out of memory, or a launch that the device or the released extension refuses
            log.error("%s: does not run: %s", row.name, reason(error))
        records.append(_record(row, judged.get(key)) | (measured or {}))
    return records


def _shape_rows(shape: Shape, released: bool, plain: bool) -> list[KernelRow]:
    layers = list(PRODUCT_LAYERS)
    if shape.features == shape.encoder:
        # the same as dense
        layers.remove("dense768")
    pairs = [(layer, direction) for direction in TIMED_PRODUCTS for layer in layers]
    pairs += [(layer, "step") for layer in STEP_LAYERS]
    if shape.momentum:
        pairs += [(layer, "step_momentum") for layer in MOMENTUM_LAYERS]
    if released:
        pairs += [(RELEASED_CUDA, direction) for direction in ("forward", "dx", "dw", "step")]
    if plain:
        pairs += [(layer, direction) for layer in PLAIN_CUDA for direction in TIMED_PRODUCTS]
    return [KernelRow(shape, *pair) for pair in pairs]


def _sweep_rows(shape: Shape) -> list[KernelRow]:
    # only grouped layers depend on the group size
    same_but_group_size = replace(shape, name=SWEEP.name, group_size=SWEEP.group_size) == SWEEP
    layers = SWEEP_LAYERS if shape == SWEEP or not same_but_group_size else ("group_fan_in",)
    return [
        KernelRow(shape, layer, direction)
        for direction in ("forward", "backward")
        for layer in layers
    ]


def _key(row: KernelRow) -> KernelRow:
    """The row without what its verdict does not depend on."""
    return replace(row, shape=replace(row.shape.small(), name=""))


def _record(row: KernelRow, verdict: Judgement | None) -> dict[str, object]:
    """The record of a row, without times."""
    shape = row.shape
    record: dict[str, object] = dict.fromkeys(COLUMNS)
    record |= {
        "shape": shape.name,
        "layer": row.layer,
        "direction": row.direction,
        "batch": shape.batch,
        "features": shape.features,
        "labels": shape.labels,
        "fan_in": shape.fan_in,
        "group_size": shape.group_size if _base(row.layer) in GROUPED else None,
        "what": WHAT[_base(row.layer)],
    }
    if verdict is not None:
        record |= {"error": f"{verdict.error:.3g}", "gate": f"{verdict.bound:.3g}"}
    return record


def _measured(case: Case, times: Times, peak: int, copy: float) -> dict[str, object]:
    rate = case.bytes / times.median / 1e9
    if rate > MOST_BANDWIDTH * copy:
        raise KernelError(
            f"it would move its {case.bytes:,} bytes in {times.median:.3g} ms, at {rate / copy:.0f} times the rate of "
            "a copy: not all of its work was timed."
        )
    return {
        "milliseconds": round(times.median, 5),
        "low": round(times.low, 5),
        "high": round(times.high, 5),
        "features": case.features,
        "labels": case.labels,
        "fan_in": case.fan_in,
        "dtype": str(case.dtype).removeprefix("torch."),
        "bytes": case.bytes,
        "terabytes_per_second": round(rate, 4),
        "share_of_copy": round(rate / copy, 4),
        "state_mib": round(case.state_bytes / 2**20, 2),
        "peak_mib": round(peak / 2**20, 2),
    }


def _base(layer: str) -> str:
    """The layer without its precision."""
    return layer.removesuffix("_fp8")
