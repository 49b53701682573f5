"""The tables of the committed benchmarks: targets of the kernels and their times, and training at scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from haste.presets import methods
from haste.report.benchmarks import SWEEP, Results, Row
from haste.report.published import PEAK_MEMORY, SECONDS_PER_EPOCH, Published
from haste.report.registry import table
from haste.report.render import GIB, Column, Table
from haste.report.style import method_title

if TYPE_CHECKING:
    from haste.report.load import Sources

MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"
PRODUCTS = {"forward": "forward", "dx": "dX", "dw": "dW"}
"""of an output layer, by direction in kernels.csv: what tables and figures call them"""
OF_BOTTLENECK = {64: 1.1, 32: 1.5}
"""by group size: times the products of a dense bottleneck that ours may take"""
OVER_RELEASED = 3.0
"""at least, for products of groups of 16, which no dense product is a measure of"""
STEP_OVER_RELEASED = 10.0
STEP_OF_PRODUCTS = {64: 1.2, 32: 1.6, 16: 1.8}
"""by group size: times the three products of a bottleneck that a whole step of the tail may take"""
OVER_DENSE = 2.0
LARGEST = "lfpaper2keywords"
PEAK_MIB, WHOLE_MIB = 64.0, 1.6 * 1024
DIRECTIONS = ("forward", "dx", "dw", "backward", "step", "step_momentum")


@table("kernels", "Kernels: targets", benchmark="kernels")
def targets_table(sources: Sources) -> Table:
    """What the output layer's kernels were to reach, and what they do, by device.

    Each row is a target on one of the paper's output layers: "met" or "missed" follows from the committed
    results of ``haste bench kernels``, whose times stand in ``kernel_times``. Without results the table says
    that it needs CUDA: times taken on a CPU say nothing about the paper's claims on speed.
    """
    columns = (
        Column("device", "Device"),
        Column("what", "What", once=True, width=6),
        Column("target", "Target", once=True),
        Column("shape", "Shape"),
        Column("measured", "Measured", digits=2),
        Column("verdict", "Verdict"),
    )
    devices = sources.benchmarks
    rows = [{"device": times.device, **row} for times in devices for row in _targets(times)]
    notes = [
        *(times.note() for times in devices),
        "Targets were set before the kernels were written. Ratios are of median times in one run; a "
        "dense bottleneck (one with as many features as the fan-in) is multiplied by cuBLAS in bf16.",
        "A step is loss, all gradients and the update with stochastic rounding, with the momentum that "
        "the data set is trained with.",
    ]
    return Table.of(columns, rows, notes, section="device")


@table("kernel_times", "Kernel times", benchmark="kernels", long=True)
def times_table(sources: Sources) -> Table:
    """Median times of the output layer's products and training steps on the paper's output layers, by device.

    ``group fan in`` is the method's tail, ``fixed fan in`` has an index set for each label, ``bottleneck`` is
    a dense product with as many features as the fan-in, ``dense`` one with all features of the tail and
    ``dense768`` with all of the encoder's; ``haste`` is head and tail together. From the committed results of
    ``haste bench kernels``; a kernel whose result was wrong has no time.
    """
    columns = (
        Column("device", "Device"),
        Column("shape", "Shape", once=True),
        Column("layer", "Layer"),
        Column("batch", "Batch", digits=0),
        Column("features", "Features", digits=0),
        Column("fan_in", "Fan-in", digits=0),
        Column("group_size", "Group", digits=0),
        *(
            Column(name, f"{PRODUCTS.get(name, name).replace('_', ' ')} (ms)", digits=3)
            for name in DIRECTIONS
        ),
        Column("peak_mib", "Peak of a step (MiB)"),
    )
    devices = sources.benchmarks
    rows = []
    for times in devices:
        shapes = times.names("shape")
        layers = dict.fromkeys((r["shape"], r["layer"]) for r in times.rows if r["shape"] in shapes)
        for shape, layer in sorted(layers, key=lambda pair: shapes.index(pair[0])):
            first = times.find(shape=shape, layer=layer)
            rows.append(
                {
                    **{column.key: first.get(column.key) for column in columns},
                    "device": times.device,
                    "layer": layer.replace("_", " "),
                    **{d: times.milliseconds(shape, layer, d) for d in DIRECTIONS},
                    "peak_mib": times.find(shape=shape, layer=layer, direction="step").get(
                        "peak_mib"
                    ),
                }
            )
    notes = [
        *(times.note() for times in devices),
        "Medians on the device, the cache emptied before each call; quartiles, bytes and errors are in "
        "kernels.csv. A time was taken only after the result had been compared with fp64.",
        "Products are those of the tail. Steps of haste, dense768 and the released extension (released cuda) "
        "have the head's labels too. Peak: memory beyond what the layer and its inputs hold.",
        *(words for times in devices if (words := _without_time(times))),
    ]
    return Table.of(columns, rows, notes, section="device")


def _targets(times: Results) -> Iterator[Row]:
    shapes = times.names("shape")
    milliseconds = times.milliseconds
    sizes = {
        shape: int(size)
        for shape in shapes
        if (size := times.find(shape=shape, layer="group_fan_in").get("group_size"))
    }
    for direction, title in PRODUCTS.items():
        for shape, size in sizes.items():
            ours, bottleneck, released = (
                milliseconds(shape, layer, direction)
                for layer in ("group_fan_in", "bottleneck", "released_cuda")
            )
            if size in OF_BOTTLENECK:
                what = f"{title}, time over that of a dense bottleneck, G={size}"
                yield _target(what, shape, _ratio(ours, bottleneck), at_most=OF_BOTTLENECK[size])
            else:
                what = f"{title}, released extension's time over ours, G={size}"
                yield _target(what, shape, _ratio(released, ours), at_least=OVER_RELEASED)
    for shape in sizes:
        released = milliseconds(shape, "released_cuda", "step")
        if released is not None:
            # with momentum where the data set is trained with it
            ours = milliseconds(shape, "haste", "step_momentum")
            ours = milliseconds(shape, "haste", "step") if ours is None else ours
            what = "step of head and tail, released code's time over ours"
            yield _target(what, shape, _ratio(released, ours), at_least=STEP_OVER_RELEASED)
    for shape, size in sizes.items():
        if size in STEP_OF_PRODUCTS:
            times_of = [milliseconds(shape, "bottleneck", name) for name in PRODUCTS]
            known = [time for time in times_of if time is not None]
            products = sum(known) if len(known) == len(PRODUCTS) else None
            ratio = _ratio(milliseconds(shape, "group_fan_in", "step"), products)
            what = f"step of the tail, time over the three products of a dense bottleneck, G={size}"
            yield _target(what, shape, ratio, at_most=STEP_OF_PRODUCTS[size])
    for shape in sizes:
        dense, ours = (milliseconds(shape, layer, "step") for layer in ("dense768", "haste"))
        what = "step of head and tail, our own dense step's time over it (768 features, bf16)"
        yield _target(what, shape, _ratio(dense, ours), at_least=OVER_DENSE)
    for direction, published in (("forward", "4.4×"), ("backward", "25×")):
        for shape in shapes:
            fixed, ours = (
                milliseconds(shape, layer, direction) for layer in ("fixed_fan_in", "group_fan_in")
            )
            what = f"{direction}, time of our fixed fan-in over that of groups"
            yield _target(what, shape, _ratio(fixed, ours), published=published)
    step = times.find(shape=LARGEST, layer="haste", direction="step")
    peak, state = step.get("peak_mib"), step.get("state_mib")
    what = "memory of a step beyond layer and inputs, 8.6 million labels (MiB)"
    yield _target(what, LARGEST, peak, at_most=PEAK_MIB, unit=" MiB")
    whole = None if peak is None or state is None else float(peak) + float(state)
    what = "memory of layer and step together (MiB)"
    yield _target(what, LARGEST, whole, at_most=WHOLE_MIB, unit=" MiB")


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    if numerator is None or denominator is None:
        return None
    return float(numerator) / float(denominator)


def _target(
    what: str,
    shape: str,
    value: float | None,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    published: str = "",
    unit: str = "×",
) -> Row:
    """A row about a value that has one of two bounds, or none and only a published one beside it."""
    if at_most is not None:
        target = f"at most {at_most:,g}{unit}"
        verdict = MET if value is not None and value <= at_most else MISSED
    elif at_least is not None:
        target = f"at least {at_least:g}{unit}"
        verdict = MET if value is not None and value >= at_least else MISSED
    else:
        target, verdict = f"none; published: up to {published}", "reported"
    if value is None:
        verdict = NOT_MEASURED
    return {"what": what, "target": target, "shape": shape, "measured": value, "verdict": verdict}


def _without_time(times: Results) -> str | None:
    """Which rows have no time, in a sentence."""
    names = ", ".join(
        f"{row.get('shape')}/{row['layer']}/{row['direction']}"
        for row in times.rows
        if row["milliseconds"] is None
    )
    return f"{times.device}: no time, as wrong or not able to run: {names}." if names else None


@table("scale", "Time and memory of training at the paper's sizes", benchmark="scale", long=True)
def scale_table(sources: Sources) -> Table:
    """Time and memory of a training step of the whole model at the sizes of the paper's data sets, by device
    and preset, with the papers' numbers (A100) beside ours.

    No data set is needed: encoders have the right shape and random weights, documents and labels are drawn
    with the published averages. The rows are the committed results of ``haste bench scale``. Without any, the
    table says that it needs CUDA.
    """
    columns = (
        Column("device", "Device"),
        Column("dataset", "Data set", once=True),
        Column("method", "Method"),
        Column("preset", "Preset"),
        Column("labels", "Labels", digits=0),
        Column("batch", "Batch", digits=0),
        Column("tokens_per_step", "Tokens a step", digits=0),
        Column("seconds_per_step", "Step (ms)", digits=2, scale=1e-3),
        Column("encoder_seconds", "encoder", digits=2, scale=1e-3),
        Column("layer_seconds", "output layer", digits=2, scale=1e-3),
        Column("rest_seconds", "rest", digits=2, scale=1e-3),
        Column("layer_share", "Layer's share (%)", scale=0.01),
        Column("busy_share", "GPU busy (%)", scale=0.01),
        Column("synchronizations_per_step", "Synchronizations a step", digits=0),
        Column("epoch_minutes", "Epoch (min)", digits=2),
        Column("paper_epoch_minutes", "Epoch (paper, A100)", digits=2),
        Column("peak_allocated_gib", "Peak (GiB)", digits=2),
        Column("peak_reserved_gib", "reserved", digits=2),
        Column("layer_gib", "layer", digits=2),
        Column("topk_seconds", "Top 100 of 256 (ms)", digits=1, scale=1e-3),
        Column("paper_peak_gib", "Peak (paper)", digits=2),
        Column("note", "Note"),
    )
    devices = sources.benchmarks
    rows = [
        {
            **{column.key: row.get(column.key) for column in columns},
            "device": results.device,
            "method": method_title(str(row["method"])),
            **_of_the_paper(row, sources.published),
        }
        for results in devices
        for row in results.rows
    ]
    notes = (
        *(results.note() for results in devices),
        "Encoders have the shape of the paper's and random weights; lengths are drawn from a lognormal "
        "distribution about the data set's average, cut to the paper's length, and labels by Zipf's law "
        "with the published number a document. Hyper-parameters are those of workflow/configs/paper.yaml.",
        "Preset default: documents lie end to end without padding, activations of the encoder are computed "
        "again in the backward pass, steps replayed as CUDA graphs. Preset speed: the same with all "
        "activations kept.",
        "A step's parts are by the GPU's own clock, and the rest is what is left of the step; an epoch is "
        "its steps times the step. Peak: the most memory allocated, and reserved, while training, rewiring "
        "included. GPU busy: time of kernels over time of the step. Synchronizations: how often the host "
        "synchronizes with the GPU in a step. Top 100 of 256: the best labels of 256 documents, from their features.",
        "Spartex is measured with its auxiliary loss, as at the start of a run. Rows of the sweep have the "
        "hyper-parameters of LF-Paper2Keywords-8.6M, the preset default and other numbers of labels.",
    )
    return Table.of(columns, rows, notes, section="device")


def _of_the_paper(row: Row, published: Published) -> Row:
    """Memory and time that a method's paper has for a data set; a word where it has a word."""
    known = methods().get(str(row["method"]))
    if known is None or known.published_as is None or row["dataset"] == SWEEP:
        return {}
    paper, name = known.published_as
    return {
        key: number.cell(unit)
        for key, metric, unit in (
            ("paper_peak_gib", PEAK_MEMORY, GIB),
            ("paper_epoch_minutes", SECONDS_PER_EPOCH, 60),
        )
        if (number := published.find(paper, str(row["dataset"]), name, metric))
    }
