"""How every figure looks: one theme, one colour, marker and dash a method, labels beside what they name.

Colours are those of Okabe and Ito, told apart with any colour vision; methods that share one differ
in marker and dash, so that figures also read in grey.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

BLACK, GREY, LIGHT_GREY, BROWN = "#000000", "#767676", "#a0a0a0", "#7f5200"
ORANGE, SKY, GREEN, BLUE = "#e69f00", "#56b4e9", "#009e73", "#0072b2"
VERMILION, PURPLE = "#d55e00", "#cc79a7"

COLUMN_WIDTH = 3.6
"""inches of a panel"""
PNG_DPI = 200
LABEL_SIZE = 8
"""points, of names beside lines and markers"""


@dataclass(frozen=True)
class Look:
    """How a method is drawn in every figure."""

    colour: str
    marker: str
    dash: str = "-"
    hollow: bool = False
    size: float = 6.0

    @property
    def face(self) -> str:
        """Fill of the marker."""
        return "white" if self.hollow else self.colour


LOOKS = {
    "dense": Look(BLACK, "o"),
    "elmo-bf16": Look(GREY, "s"),
    "elmo-fp8": Look(GREY, "D", "--", hollow=True),
    "bottleneck": Look(SKY, "^"),
    "unstructured": Look(GREEN, "v"),
    "unstructured-head": Look(GREEN, "+", "--", size=8),
    "fixed-fan-in": Look(BLUE, "<"),
    "fixed-fan-in-head": Look(BLUE, "H", "--", hollow=True),
    "spartex": Look(PURPLE, ">"),
    "spartex-head": Look(PURPLE, "8", "--", hollow=True),
    "block-sparse": Look(ORANGE, "P", size=7),
    "block-sparse-head": Look(ORANGE, "x", "--"),
    "block-sparse-plus": Look(ORANGE, "2", "-.", size=8),
    "group-fan-in": Look(VERMILION, "1", ":", size=8),
    "haste": Look(VERMILION, "*", size=11),
    "haste-released": Look(VERMILION, "X", "--", hollow=True, size=7),
    "haste-plus": Look(VERMILION, "p", "-.", hollow=True, size=8),
    "omikuji": Look(BROWN, "h", ":"),
    "popularity": Look(LIGHT_GREY, "d", ":"),
}
OTHER = Look(GREEN, "p", "-.", hollow=True)


def look(method: str) -> Look:
    """The look of a method; one that is not known yet gets a look of its own kind."""
    return LOOKS.get(method, OTHER)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The theme, for the block: no window, fonts embedded in pdf, sizes for print."""
    import matplotlib as mpl
    import seaborn as sns

    settings = {
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


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names right of the axes at the height of the lines' ends, moved apart where they would touch.

    `ends`: (y in data units, text, colour) of each line.
    """
    figure = axes.figure
    figure.canvas.draw()
    frame = axes.get_window_extent()
    wanted = [(axes.transData.transform((0, y))[1] - frame.y0, text, c) for y, text, c in ends]
    wanted.sort(key=lambda end: end[0])
    gap = 1.25 * LABEL_SIZE * figure.dpi / 72
    places = spread([end[0] for end in wanted], gap, frame.height)
    for (end, text, colour), place in zip(wanted, places, strict=True):
        heights = [end / frame.height, place / frame.height]
        line = {"transform": axes.transAxes, "clip_on": False, "color": colour}
        axes.plot([1.005, 1.04], heights, linewidth=0.6, **line)
        axes.text(1.05, heights[1], text, va="center", fontsize=LABEL_SIZE, **line)


def spread(places: Sequence[float], gap: float, room: float) -> list[float]:
    """Ascending places in [0, room], moved as little as it takes to lie at least `gap` apart.

    Neighbours that touch form a block around the mean of what its members wanted. Places that do
    not fit into the room run over its upper end.
    """

    def start(block: Sequence[float]) -> float:
        length = gap * (len(block) - 1)
        return max(0.0, min(sum(block) / len(block) - length / 2, room - length))

    blocks: list[list[float]] = []
    for place in places:
        blocks.append([place])
        while len(blocks) > 1 and start(blocks[-1]) < start(blocks[-2]) + gap * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += last
    return [start(block) + i * gap for block in blocks for i in range(len(block))]


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


def label_points(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside points of a scatter, each where it covers no marker, level line or other name.

    `points`: (x, y in data units, text, colour). A name that had to move away gets a thin line.
    """
    figure = axes.figure
    figure.canvas.draw()
    frame = axes.get_window_extent()
    pixel = figure.dpi / 72
    spots = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [_Box(x, y, x, y).padded(5 * pixel) for x, y in spots]
    levels = [line.get_window_extent() for line in axes.lines if line.get_linestyle() == ":"]
    taken += [_Box(*box.extents).padded(pixel) for box in levels]
    taken += [_Box(*text.get_window_extent().extents) for text in axes.texts]
    for i in sorted(range(len(points)), key=lambda i: -spots[i][1]):
        x, y, text, colour = points[i]
        size = _size(axes, text)
        candidates = [
            (radius, dx, dy, _Box.beside(spots[i], (dx, dy), radius * pixel, size))
            for radius in _RADII
            for dx, dy in _AROUND
        ]
        # all candidates are ordered by distance, so the first of the least covered is the nearest
        radius, dx, dy, box = min(
            candidates,
            key=lambda c: sum(c[3].overlaps(o) for o in taken) + 9 * (not c[3].inside(frame)),
        )
        taken.append(box)
        axes.annotate(
            text,
            (x, y),
            xytext=(dx * radius, dy * radius),
            textcoords="offset points",
            ha={-1: "right", 0: "center", 1: "left"}[dx],
            va={-1: "top", 0: "center", 1: "bottom"}[dy],
            color=colour,
            fontsize=LABEL_SIZE,
            arrowprops=None
            if radius == _RADII[0]
            else {"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkB": 4},
        )


_RADII = (7, 13, 20, 28, 38, 50, 64)
"""points from the marker at which a name is tried"""
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


@dataclass(frozen=True)
class _Box:
    """A rectangle on the canvas, in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def beside(
        cls,
        spot: Sequence[float],
        side: tuple[int, int],
        distance: float,
        size: tuple[float, float],
    ) -> _Box:
        """The place of a text of `size` whose near edge or corner is `distance` from `spot`."""
        low = [
            spot[i] + side[i] * distance - {-1: 1.0, 0: 0.5, 1: 0.0}[side[i]] * size[i]
            for i in (0, 1)
        ]
        return cls(low[0], low[1], low[0] + size[0], low[1] + size[1])

    def padded(self, by: float) -> _Box:
        return _Box(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)

    def overlaps(self, other: _Box) -> bool:
        return (
            self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1
        )

    def inside(self, frame: Bbox) -> bool:
        return (
            frame.x0 <= self.x0
            and self.x1 <= frame.x1
            and frame.y0 <= self.y0
            and self.y1 <= frame.y1
        )


def _size(axes: Axes, text: str) -> tuple[float, float]:
    """Width and height of a label, in pixels."""
    label = axes.text(0, 0, text, fontsize=LABEL_SIZE)
    extent = label.get_window_extent()
    label.remove()
    return extent.width, extent.height


def plain_log_ticks(axes: Axes, which: str = "x") -> None:
    """Round numbers, as such instead of powers, on logarithmic axes; call it when all is drawn."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    for axis in ([axes.xaxis] if "x" in which else []) + ([axes.yaxis] if "y" in which else []):
        low, high = axis.get_view_interval()
        decades = math.log10(high / low)
        steps = (1.0,) if decades > 4 else (1.0, 2.0, 5.0)
        if decades < 1:
            steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
        axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=50))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())


def nothing(words: str, row: Mapping[str, str]) -> tuple[Figure, pd.DataFrame]:
    """What is drawn where there is nothing to draw: why, and that as a table of one row."""
    import matplotlib.pyplot as plt
    import pandas as pd

    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 1.2))
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", color=ORANGE)
    return figure, pd.DataFrame([dict(row)])
