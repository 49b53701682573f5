"""The figures of the kernel benchmark: each is returned with the data frame it was drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from haste.reporting.benchmarks import KernelTimes, time_ratios
from haste.reporting.claims import kernel_target
from haste.reporting.kernels import PRODUCTS
from haste.reporting.sources import Sources
from haste.reporting.style import (
    BLUE,
    COLUMN_WIDTH,
    GREY,
    SKY,
    VERMILION,
    label_level,
    nothing,
)
from haste.reporting.table import Cell

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SWEPT = {"fan_in": "Fan-in", "batch": "Documents a batch"}
DIRECTIONS = {"forward": (BLUE, "o", "C1"), "backward": (VERMILION, "s", "C2")}
DASHES = ("-", "--", "-.", ":")
"""of devices, where there are several"""
BARS = {"group_fan_in": ("group-shared fan-in", VERMILION), "bottleneck": ("bottleneck", SKY)}
UNMEASURED = "needs CUDA: no kernel benchmark is committed\n(haste bench kernels)"
BAR_DIRECTIONS = {**PRODUCTS, "step": "step of the tail"}


def kernel_speedup(sources: Sources) -> tuple[Figure, pd.DataFrame]:
    """Time of fixed fan-in over that of groups, by fan-in and by batch, with the paper's largest."""
    import matplotlib.pyplot as plt
    import pandas as pd

    devices = [KernelTimes.load(path) for path in sources.inputs.benchmarks]
    if not devices:
        return nothing(UNMEASURED, {"device": "none", "result": "needs CUDA"})
    drawn = pd.DataFrame(
        [
            {"device": each.device, "swept": swept, **point}
            for each in devices
            for swept in SWEPT
            for point in _speedups(each, swept)
        ],
        columns=["device", "swept", "value", "direction", "speedup"],
    )
    figure, panels = plt.subplots(
        1, 2, figsize=(2.4 * COLUMN_WIDTH, 3.4), squeeze=False, sharey=True
    )
    for axes, (swept, title) in zip(panels[0], SWEPT.items(), strict=True):
        part = drawn[drawn["swept"] == swept]
        for (device, direction), line in part.groupby(["device", "direction"], sort=False):
            colour, marker, _ = DIRECTIONS[direction]
            dash = DASHES[[each.device for each in devices].index(device) % len(DASHES)]
            name = direction if len(devices) == 1 else f"{direction}, {device}"
            line = line.sort_values("value")
            axes.plot(line["value"], line["speedup"], dash, color=colour, marker=marker, label=name)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel(title)
        values = sorted(set(part["value"]))
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.axhline(1, color="black", linewidth=0.9)
        for direction, (colour, _, claim) in DIRECTIONS.items():
            number = kernel_target(sources.published, claim)[1]
            label_level(axes, number, f"published, {direction}: up to {number:g}×", colour)
        _ratio_ticks(axes)
    panels[0][0].set_ylabel("Time of fixed fan-in / groups")
    handles, titles = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside right center")
    return figure, drawn


def kernel_floor(sources: Sources) -> tuple[Figure, pd.DataFrame]:
    """How near each product and step comes to a copy of the bytes that it must move."""
    import matplotlib.pyplot as plt
    import pandas as pd

    devices = [KernelTimes.load(path) for path in sources.inputs.benchmarks]
    if not devices:
        return nothing(UNMEASURED, {"device": "none", "result": "needs CUDA"})
    drawn = pd.DataFrame(
        [
            {
                "device": each.device,
                "shape": shape,
                "direction": direction,
                "layer": layer,
                "share of copy": each.find(shape, layer, direction).get("share_of_copy"),
            }
            for each in devices
            for shape in each.shapes()
            for direction in BAR_DIRECTIONS
            for layer in BARS
        ],
        columns=["device", "shape", "direction", "layer", "share of copy"],
    )
    figure, panels = plt.subplots(
        len(devices),
        len(BAR_DIRECTIONS),
        figsize=(0.62 * COLUMN_WIDTH * len(BAR_DIRECTIONS) + 1, 1 + 2.1 * len(devices)),
        squeeze=False,
        sharey="row",
        sharex=True,
    )
    for row, each in zip(panels, devices, strict=True):
        shapes = each.shapes()
        places = np.arange(len(shapes))[::-1]
        for axes, (direction, title) in zip(row, BAR_DIRECTIONS.items(), strict=True):
            part = drawn[(drawn["device"] == each.device) & (drawn["direction"] == direction)]
            for offset, (layer, (name, colour)) in zip((0.19, -0.19), BARS.items(), strict=True):
                shares = part[part["layer"] == layer].set_index("shape")["share of copy"]
                widths = shares.reindex(shapes).fillna(0).to_numpy(float)
                axes.barh(places + offset, widths, height=0.36, color=colour, label=name)
            axes.set_yticks(places, shapes)
            axes.grid(axis="y", visible=False)
            axes.axvline(1, color=GREY, linewidth=1)
            axes.set_title(title)
        if len(devices) > 1:
            row[0].set_ylabel(each.device)
    figure.supxlabel("Share of the speed of a copy of the bytes that must move", fontsize=9)
    handles, titles = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside lower right", ncols=2)
    return figure, drawn


def _speedups(times: KernelTimes, swept: str) -> list[dict[str, Cell]]:
    """Ratios along one sweep: all else is as in the problem around which the sweeps go."""
    rows = list(times.sweep())
    base = next((row for row in rows if row["shape"] == "sweep"), None)
    if base is None:
        return []
    fixed = {
        name: base[name] for name in ("batch", "fan_in", "features", "labels") if name != swept
    }
    own = [
        row
        for row in rows
        if _has(row, fixed) and row.get("group_size") in (None, base["group_size"])
    ]
    return [
        {"value": value, "direction": direction, "speedup": ratio}
        for direction in DIRECTIONS
        for value in sorted({row[swept] for row in own})
        for ratio in time_ratios(
            [row for row in own if row[swept] == value], "fixed_fan_in", "group_fan_in", direction
        )
    ]


def _has(row: Mapping[str, Cell], values: Mapping[str, Cell]) -> bool:
    return all(row[name] == value for name, value in values.items())


def _ratio_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    steps: Sequence[float] = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
    axes.yaxis.set_major_locator(FixedLocator(list(steps)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
