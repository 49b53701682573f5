"""The figures of the committed benchmarks: each is returned with the data frame that it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haste.report.benchmark_tables import PRODUCTS
from haste.report.benchmarks import SWEEP, Results, has, time_ratios
from haste.report.claims import claims, kernel_target
from haste.report.published import HASTE, PEAK_MEMORY
from haste.report.registry import figure
from haste.report.render import GIB
from haste.report.style import (
    BLUE,
    COLUMN_WIDTH,
    GREY,
    LABEL_SIZE,
    LIGHT_GREY,
    SKY,
    VERMILION,
    by_method,
    empty_figure,
    label_level,
    legend_outside,
    panels,
    plain_log_ticks,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from haste.report.load import Sources

    Drawing = tuple[Figure, pd.DataFrame]

SWEPT = {"fan_in": "Fan-in (logarithmic)", "batch": "Documents a batch (logarithmic)"}
DIRECTIONS = {"forward": (BLUE, "C1"), "backward": (VERMILION, "C2")}
"""colour, and the claim whose number is drawn"""
LAYERS = {"group_fan_in": ("group-shared fan-in", VERMILION), "bottleneck": ("bottleneck", SKY)}
STEPS = {**PRODUCTS, "step": "step of the tail"}
MEASURED, PAPER = "measured", "paper"
MARGIN_OF_NAMES = 0.55
"""of the height of what is drawn, on its logarithmic axis"""


@figure("kernel_speedup", "Speed of groups against fixed fan-in", benchmark="kernels")
def kernel_speedup(sources: Sources) -> Drawing:
    """How many times faster groups are than fixed fan-in, by fan-in (128 documents) and by batch (fan-in 64);
    524,288 labels over 768 features in groups of 32.

    Dotted lines: the largest ratios that the paper reports. Both sides are this project's kernels, and its
    fixed fan-in is made as fast as it could be: a slow one would make the ratios larger without making
    anything faster.
    """
    import pandas as pd
    import seaborn as sns

    drawn = pd.DataFrame(
        [
            {"device": times.device, "swept": swept, **point}
            for times in sources.benchmarks
            for swept in SWEPT
            for point in _speedups(times, swept)
        ],
        columns=["device", "swept", "value", "direction", "speedup"],
    )
    # of some devices no sweep was measured
    devices = list(drawn["device"].unique())
    chart, axes_of = panels(1, 2, (2.4 * COLUMN_WIDTH, 3.4), sharey=True)
    by_id = {claim.id: claim for claim in claims()}
    for axes, (swept, title) in zip(axes_of[0], SWEPT.items(), strict=True):
        part = drawn[drawn["swept"] == swept]
        if not part.empty:
            sns.lineplot(
                part,
                x="value",
                y="speedup",
                hue="direction",
                palette={direction: colour for direction, (colour, _) in DIRECTIONS.items()},
                style="device" if len(devices) > 1 else None,
                estimator=None,
                marker="o",
                ax=axes,
            )
        axes.set_xscale("log", base=2)
        axes.set(yscale="log", xlabel=title, ylabel="Time of fixed fan-in / groups (logarithmic)")
        axes.set_title(", ".join(devices))
        values = sorted(set(part["value"]))
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.axhline(1, color="black", linewidth=0.9)
        for direction, (colour, claim) in DIRECTIONS.items():
            number = kernel_target(sources.published, by_id[claim])[1]
            label = f"{direction}, published: up to {number:g}×"
            axes.axhline(number, color=colour, linestyle=":", linewidth=1.2, zorder=1, label=label)
        plain_log_ticks(axes, "y", "×")
    legend_outside(chart)
    return chart, drawn


@figure("copy_bandwidth", "Kernels against the bandwidth of a copy", benchmark="kernels")
def copy_bandwidth(sources: Sources) -> Drawing:
    """How near the kernels come to what memory allows: the bytes that a product or step must move over its
    time, as a share of the speed at which the device copies.

    At 1 nothing could be faster without moving less. Beside the group-shared tail stands the dense product of
    the same FLOPs, which gathers nothing. A step reads and writes weights and biases; products read or write a
    number for each document and label as well.
    """
    import pandas as pd
    import seaborn as sns

    devices = sources.benchmarks
    drawn = pd.DataFrame(
        [
            {
                "device": times.device,
                "shape": shape,
                "direction": direction,
                "layer": layer,
                "share of copy": times.find(shape=shape, layer=layer, direction=direction).get(
                    "share_of_copy"
                ),
            }
            for times in devices
            for shape in times.names("shape")
            for direction in STEPS
            for layer in LAYERS
        ]
    )
    chart, axes_of = panels(
        len(devices),
        len(STEPS),
        (0.62 * COLUMN_WIDTH * len(STEPS) + 1, 1 + 2.1 * len(devices)),
        sharey="row",
        sharex=True,
    )
    for row, times in zip(axes_of, devices, strict=True):
        for axes, (direction, title) in zip(row, STEPS.items(), strict=True):
            part = drawn[(drawn["device"] == times.device) & (drawn["direction"] == direction)]
            sns.barplot(
                part.assign(layer=part["layer"].map({k: name for k, (name, _) in LAYERS.items()})),
                x="share of copy",
                y="shape",
                hue="layer",
                palette=dict(LAYERS.values()),
                saturation=1,
                ax=axes,
            )
            axes.grid(axis="y", visible=False)
            axes.axvline(1, color=GREY, linewidth=1)
            axes.set(title=title, xlabel="", ylabel=times.device)
    chart.supxlabel("Share of the speed of a copy of the bytes that must move", fontsize=9)
    legend_outside(chart, "outside lower right")
    return chart, drawn


def _speedups(times: Results, swept: str) -> list[dict[str, Any]]:
    """Ratios along one sweep: all else is as in the problem around which the sweeps go."""
    rows = [row for row in times.rows if str(row.get("shape")).startswith(SWEEP)]
    base = next((row for row in rows if row["shape"] == SWEEP), None)
    if base is None:
        return []
    fixed = {n: base[n] for n in ("batch", "fan_in", "features", "labels") if n != swept}
    sizes = (None, base["group_size"])
    rows = [row for row in rows if has(row, fixed) and row.get("group_size") in sizes]
    return [
        {"value": value, "direction": direction, "speedup": ratio}
        for direction in DIRECTIONS
        for value in sorted({row[swept] for row in rows})
        for ratio in time_ratios(
            [row for row in rows if row[swept] == value], "fixed_fan_in", "group_fan_in", direction
        )
    ]


@figure("scale_memory", "Memory by number of labels", benchmark="scale")
def scale_memory(sources: Sources) -> Drawing:
    """Peak memory of training against the number of labels, preset default: documents lie end to
    end, and the encoder's activations are computed again in the backward pass.

    Lines are one model (DistilRoBERTa, the hyper-parameters of LF-Paper2Keywords-8.6M) with ever more labels,
    until the GPU is full; markers are the paper's four data sets with their own encoders and hyper-parameters,
    and crosses the paper's numbers for its own method on an A100.
    """
    import pandas as pd
    import seaborn as sns

    # of some devices, times alone were measured
    devices = [results for results in sources.benchmarks if _measured(results)]
    if not devices:
        words = "needs CUDA: no scale benchmark is committed\n(haste bench scale)"
        return empty_figure(words, {"device": "none", "result": "needs CUDA"})
    drawn = pd.DataFrame(
        {"device": results.device, **row}
        for results in devices
        for row in (*_measured(results), *_published(results, sources))
    )
    chart, axes_of = panels(1, len(devices), (1.7 * COLUMN_WIDTH * len(devices), 4.4))
    for axes, results in zip(axes_of[0], devices, strict=True):
        part = drawn[drawn["device"] == results.device]
        ours, theirs = part[part["source"] == MEASURED], part[part["source"] == PAPER]
        swept = ours["dataset"] == SWEEP
        place = {"x": "labels", "y": "peak GiB", "ax": axes}
        lines = by_method(ours[swept]["method"], lines=True) | {"markers": False}
        sns.lineplot(ours[swept], **place, **lines)
        sns.scatterplot(ours[~swept], **place, **by_method(ours[~swept]["method"]), legend=False)
        sns.scatterplot(
            theirs, **place, marker="x", linewidth=1.4, color=VERMILION, label="HASTE, the paper's"
        )
        axes.set(xscale="log", yscale="log", title=results.device, ylabel="")
        axes.set_xlabel("Labels (logarithmic)")
        if results.machine.get("memory_gib"):
            total = float(results.machine["memory_gib"])
            label_level(axes, total, f"memory of the GPU: {total:.0f} GiB", "black")
        _name_sizes(axes, part)
        plain_log_ticks(axes, "y")
    axes_of[0][0].set_ylabel("Peak memory of training (GiB, logarithmic)")
    legend_outside(chart)
    return chart, drawn


def _measured(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "dataset": row["dataset"],
            "method": row["method"],
            "source": MEASURED,
            "labels": row["labels"],
            "peak GiB": row["peak_allocated_gib"],
        }
        for row in results.rows
        if row["preset"] == "default" and row["peak_allocated_gib"] is not None
    ]


def _published(results: Results, sources: Sources) -> list[dict[str, Any]]:
    """The paper's numbers for its own method, on the data sets that were measured."""
    numbers = {
        dataset: sources.published.find(HASTE, dataset, "HASTE", PEAK_MEMORY)
        for dataset in results.names("dataset")
    }
    return [
        {
            "dataset": dataset,
            "method": "haste",
            "source": PAPER,
            "labels": results.find(dataset=dataset)["labels"],
            "peak GiB": number.value / GIB,
        }
        for dataset, number in numbers.items()
        if number and number.value is not None
    ]


def _name_sizes(axes: Axes, drawn: pd.DataFrame) -> None:
    """The data sets' names, below what is drawn at their numbers of labels."""
    low, high = axes.get_ylim()
    axes.set_ylim(low * (low / high) ** MARGIN_OF_NAMES, high)
    for labels, rows in drawn[drawn["dataset"] != SWEEP].groupby("labels"):
        axes.axvline(labels, color=LIGHT_GREY, linewidth=0.8, zorder=0)
        axes.annotate(
            "\n".join(dict.fromkeys(rows["dataset"])),
            (labels, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            rotation=90,
            va="bottom",
            color=GREY,
            fontsize=LABEL_SIZE - 1,
        )
