"""The tables of the committed benchmarks: times of the kernels, and training at scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haste.presets import methods
from haste.report.benchmarks import SWEEP, Results, Row
from haste.report.published import PEAK_MEMORY, SECONDS_PER_EPOCH, Published
from haste.report.registry import table
from haste.report.render import GIB, Column, Table
from haste.report.style import method_title

if TYPE_CHECKING:
    from haste.report.load import Sources

PRODUCTS = {"forward": "forward", "dx": "dX", "dw": "dW"}
"""of an output layer, by direction in kernels.csv: what tables and figures call them"""
DIRECTIONS = ("forward", "dx", "dw", "backward", "step", "step_momentum")


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
