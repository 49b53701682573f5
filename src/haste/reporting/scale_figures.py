"""The figure of the scale benchmark, returned with the data frame it was drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haste.presets import methods
from haste.reporting.published import PEAK_MEMORY
from haste.reporting.scale import GIB, MEMORY, SWEEP, ScaleResults
from haste.reporting.sources import Sources
from haste.reporting.style import (
    COLUMN_WIDTH,
    GREY,
    LABEL_SIZE,
    LIGHT_GREY,
    VERMILION,
    label_level,
    look,
    nothing,
    plain_log_ticks,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ["device", "dataset", "method", "source", "labels", "peak GiB"]
OURS, PAPER = "measured", "paper"
ROOM_FOR_NAMES = 0.55
"""of the height of what is drawn, on its logarithmic axis"""


def scale_memory(sources: Sources) -> tuple[Figure, pd.DataFrame]:
    """Peak memory of training against the number of labels, and the paper's numbers."""
    import matplotlib.pyplot as plt
    import pandas as pd

    devices = [ScaleResults.load(path) for path in sources.inputs.benchmarks]
    # of some devices, times alone were measured
    devices = [each for each in devices if _measured(each)]
    if not devices:
        words = "needs CUDA: no scale benchmark is committed\n(haste bench scale)"
        return nothing(words, {"device": "none", "result": "needs CUDA"})
    rows = [row for each in devices for row in (*_measured(each), *_published(each, sources))]
    drawn = pd.DataFrame(rows, columns=COLUMNS)
    figure, panels = plt.subplots(
        1, len(devices), figsize=(1.7 * COLUMN_WIDTH * len(devices), 4.4), squeeze=False
    )
    for axes, each in zip(panels[0], devices, strict=True):
        _draw(axes, drawn[drawn["device"] == each.device])
        if each.machine.get("memory_gib"):
            total = float(each.machine["memory_gib"])
            label_level(axes, total, f"memory of the GPU: {total:.0f} GiB", "black")
        axes.set_title(each.device)
        axes.set_xlabel("Labels")
        _name_sizes(axes, drawn[drawn["device"] == each.device])
        plain_log_ticks(axes, "y")
    panels[0][0].set_ylabel("Peak memory of training (GiB), preset memory")
    handles, titles = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside right center")
    return figure, drawn


def _measured(results: ScaleResults) -> list[dict[str, object]]:
    return [
        {
            "device": results.device,
            "dataset": row["dataset"],
            "method": row["method"],
            "source": OURS,
            "labels": row["labels"],
            "peak GiB": row["peak_allocated_gib"],
        }
        for row in results.rows
        if row["preset"] == MEMORY and row["peak_allocated_gib"] is not None
    ]


def _published(results: ScaleResults, sources: Sources) -> list[dict[str, object]]:
    """The paper's numbers for its own method, on the data sets that were measured."""
    paper, name = methods()["haste"].published_as
    found = []
    for dataset in results.datasets():
        number = sources.published.find(paper, dataset, name, PEAK_MEMORY)
        labels = next(row["labels"] for row in results.rows if row["dataset"] == dataset)
        if number is not None and number.value is not None:
            found.append(
                {
                    "device": results.device,
                    "dataset": dataset,
                    "method": "haste",
                    "source": PAPER,
                    "labels": labels,
                    "peak GiB": number.value / GIB,
                }
            )
    return found


def _name_sizes(axes: Axes, drawn: pd.DataFrame) -> None:
    """The data sets' names, below what is drawn at their numbers of labels."""
    own = drawn[drawn["dataset"] != SWEEP]
    low, high = axes.get_ylim()
    axes.set_ylim(low * (low / high) ** ROOM_FOR_NAMES, high)
    for labels, rows in own.groupby("labels"):
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


def _draw(axes: Axes, drawn: pd.DataFrame) -> None:
    """Lines through the sweep, a marker for each data set, crosses for the paper."""
    ours = drawn[drawn["source"] == OURS]
    for method, points in ours.groupby("method", sort=False):
        its = look(str(method))
        title = methods()[str(method)].title if method in methods() else str(method)
        swept = points[points["dataset"] == SWEEP].sort_values("labels")
        axes.plot(swept["labels"], swept["peak GiB"], its.dash, color=its.colour, label=title)
        own = points[points["dataset"] != SWEEP]
        axes.scatter(
            own["labels"], own["peak GiB"], s=its.size**2, marker=its.marker, color=its.colour
        )
    theirs = drawn[drawn["source"] == PAPER]
    axes.scatter(
        theirs["labels"],
        theirs["peak GiB"],
        marker="x",
        color=VERMILION,
        label="HASTE, the paper's",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
