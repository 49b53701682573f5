"""How every figure looks: one theme, one colour, marker and dash a method, labels beside what they name.

Colours are those of Okabe and Ito, told apart with any colour vision; methods that share one differ
in marker and dash, so that figures also read in grey.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from haste.files import atomic
from haste.presets import methods

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

BLACK, GREY, LIGHT_GREY, BROWN = "#000000", "#767676", "#a0a0a0", "#7f5200"
ORANGE, SKY, GREEN, BLUE = "#e69f00", "#56b4e9", "#009e73", "#0072b2"
VERMILION, PURPLE = "#d55e00", "#cc79a7"

COLUMN_WIDTH = 3.6
"""inches of a panel"""
PNG_DPI = 200
LABEL_SIZE = 8
"""points, of names beside lines and markers"""
SOLID, DASHED, DASH_DOT, DOTTED = "", (4, 1.5), (6, 1.5, 1, 1.5), (1, 1)


@dataclass(frozen=True)
class MarkerStyle:
    """How a method is drawn in every figure."""

    colour: str
    marker: str | tuple[int, int, int]
    """filled, since seaborn does not mix them with others"""
    dash: str | tuple[float, ...] = SOLID
    """as seaborn takes it"""
    size: float = 6.0
    width: float = 1.2


MARKER_STYLES = {
    "dense": MarkerStyle(BLACK, "o"),
    "elmo-bf16": MarkerStyle(GREY, "s"),
    "elmo-fp8": MarkerStyle(GREY, "D", DASHED),
    "bottleneck": MarkerStyle(SKY, "^"),
    "unstructured": MarkerStyle(GREEN, "v"),
    "rigl": MarkerStyle(GREEN, (3, 1, 45), DOTTED, size=8),
    "fixed-fan-in": MarkerStyle(BLUE, "<"),
    "spartex": MarkerStyle(PURPLE, ">"),
    "spartex-released": MarkerStyle(PURPLE, (8, 1, 22), DOTTED, size=8),
    "block-sparse": MarkerStyle(ORANGE, "P", size=7),
    "unstructured-head": MarkerStyle(GREEN, (4, 1, 0), DASHED, size=8),
    "fixed-fan-in-head": MarkerStyle(BLUE, "H", DASHED),
    "spartex-head": MarkerStyle(PURPLE, "8", DASHED),
    "block-sparse-head": MarkerStyle(ORANGE, (4, 1, 45), DASHED, size=8),
    "fixed-fan-in-64": MarkerStyle(BLUE, (5, 1, 0), DOTTED, size=8),
    "fixed-fan-in-64-head": MarkerStyle(BLUE, (5, 1, 36), DASH_DOT, size=8),
    "spartex-64": MarkerStyle(PURPLE, (7, 1, 0), DOTTED, size=8),
    "spartex-64-head": MarkerStyle(PURPLE, (7, 1, 26), DASH_DOT, size=8),
    "group-fan-in-64": MarkerStyle(VERMILION, (3, 1, 60), DOTTED, size=8),
    "group-fan-in": MarkerStyle(VERMILION, (3, 1, 0), DOTTED, size=8),
    "lightxml": MarkerStyle(BROWN, (7, 1, 13), DASH_DOT, size=8),
    "cascadexml": MarkerStyle(BROWN, (9, 1, 0), DASHED, size=8),
    "haste": MarkerStyle(VERMILION, "*", size=11, width=2.0),
    "haste-fp8": MarkerStyle(VERMILION, (5, 1, 18), DASHED, size=8),
    "haste-released": MarkerStyle(VERMILION, "X", DASHED, size=7),
    "haste-released-private": MarkerStyle(VERMILION, (6, 1, 30), DASHED, size=8),
    "haste-plus": MarkerStyle(VERMILION, "p", DASH_DOT, size=8),
    "omikuji": MarkerStyle(BROWN, "h", DOTTED),
    "popularity": MarkerStyle(LIGHT_GREY, "d", DOTTED),
}


def marker_style(method: str) -> MarkerStyle:
    """The style of a method; all that are not known have the same."""
    return MARKER_STYLES.get(method, MarkerStyle(GREEN, (8, 1, 0), DASH_DOT))


def method_title(name: str) -> str:
    """What tables and figures call a method, known or not."""
    row = methods().get(name)
    return row.title if row else name


def by_method(methods: pd.Series, *, lines: bool = False) -> dict[str, Any]:
    """Arguments of seaborn's functions that tell methods apart: of the column of their names in the data."""
    styles = {method_title(name): marker_style(name) for name in methods.unique()}
    titles = methods.map(method_title).rename("")
    shared = {
        **dict.fromkeys(("hue", "style", "size"), titles),
        "palette": {title: style.colour for title, style in styles.items()},
        "markers": {title: style.marker for title, style in styles.items()},
    }
    if lines:
        dashes = {title: style.dash for title, style in styles.items()}
        widths = {title: style.width for title, style in styles.items()}
        return {**shared, "dashes": dashes, "sizes": widths, "markeredgewidth": 0, "markersize": 6}
    sizes = {title: 1.4 * style.size**2 for title, style in styles.items()}
    return {**shared, "sizes": sizes, "linewidth": 0}


@contextlib.contextmanager
def theme() -> Iterator[None]:
    """The theme, for the block: no window, fonts embedded in pdf, sizes for print."""
    import matplotlib as mpl
    import seaborn as sns

    settings: dict[RcKeyType, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": "#e4e4e4",
        "axes.edgecolor": "#444444",
        "lines.linewidth": 1.4,
        # outlines instead of type 3 fonts, which journals refuse
        "pdf.fonttype": 42,
        "figure.constrained_layout.use": True,
        "savefig.dpi": PNG_DPI,
    }
    with mpl.rc_context(), sns.axes_style("whitegrid"), sns.plotting_context("paper"):
        mpl.use("Agg")
        mpl.rcParams.update(settings)
        # says of each font what it leaves out of a pdf
        logging.getLogger("fontTools").setLevel(logging.WARNING)
        yield


def write_figure(prefix: Path | str, draw: Callable[[], tuple[Figure, pd.DataFrame]]) -> list[Path]:
    """Draw a figure to PREFIX.csv (what it shows), .pdf and .png; returns the paths."""
    import matplotlib.pyplot as plt
    from PIL import Image

    paths = [Path(f"{prefix}{suffix}") for suffix in (".csv", ".pdf", ".png")]
    with theme():
        figure, drawn = draw()
        with atomic(paths[0]) as temporary:
            drawn.to_csv(temporary, index=False)
        # without the date, the same numbers give the same file
        with atomic(paths[1]) as temporary:
            figure.savefig(temporary, metadata={"CreationDate": None})
        with atomic(paths[2]) as temporary:
            figure.savefig(temporary)
            with Image.open(temporary) as image:
                # a third of the bytes, without a visible difference
                small = image.convert("RGB").quantize(dither=Image.Dither.NONE)
            small.save(temporary, optimize=True)
        plt.close(figure)
    return paths


def panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of `size` inches and its axes [rows, columns]."""
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=size, squeeze=False, **options)


def legend_outside(
    figure: Figure,
    place: Literal["outside right center", "outside lower right"] = "outside right center",
) -> None:
    """One legend beside all panels, in place of theirs: a panel may lack what another has."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, title in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(title, handle)
        if legend := axes.get_legend():
            legend.remove()
    columns = 1 if "right center" in place else len(handles)
    figure.legend(handles.values(), handles.keys(), loc=place, ncols=columns, handlelength=2.6)


def label_level(axes: Axes, y: float, text: str, colour: str) -> None:
    """A dotted level line with its name above its right end."""
    axes.axhline(y, color=colour, linestyle=":", linewidth=1.2, zorder=1)
    axes.annotate(
        text,
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        color=colour,
        fontsize=LABEL_SIZE,
    )


def label_below(axes: Axes, x: float, text: str, colour: str) -> None:
    """What a point is that lies below the axes, at their lower edge under its place `x`."""
    axes.annotate(
        text,
        (x, 0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 14),
        textcoords="offset points",
        ha="center",
        color=colour,
        fontsize=LABEL_SIZE,
        arrowprops={"arrowstyle": "->", "color": colour, "lw": 0.8},
    )


def plain_log_ticks(axes: Axes, which: str = "x", unit: str = "") -> None:
    """Round numbers, as such instead of powers, on logarithmic axes; call it when all is drawn."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axis in (getattr(axes, f"{name}axis") for name in which):
        low, high = axis.get_view_interval()
        decades = math.log10(high / low)
        steps: tuple[float, ...] = (1.0,) if decades > 4 else (1.0, 2.0, 5.0)
        if decades < 1:
            steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
        axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=50))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}{unit}"))
        axis.set_minor_locator(NullLocator())


def empty_figure(words: str, row: Mapping[str, str]) -> tuple[Figure, pd.DataFrame]:
    """What is drawn where there is nothing to draw: why, and that as a table of one row."""
    import pandas as pd

    figure, ((axes,),) = panels(1, 1, (COLUMN_WIDTH, 1.2))
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", color=ORANGE)
    return figure, pd.DataFrame([dict(row)])
