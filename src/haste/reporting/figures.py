"""The figures of a grid. Each function draws one and returns it with the data frame it was drawn from."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from haste.errors import DataError
from haste.files import atomic
from haste.labels.frequency import label_frequencies
from haste.labels.order import LabelOrder
from haste.presets import ablation, method
from haste.reporting.kernel_figures import kernel_floor, kernel_speedup
from haste.reporting.runs import run_frame
from haste.reporting.scale_figures import scale_memory
from haste.reporting.sources import Sources, cohesion_orders
from haste.reporting.style import (
    BLUE,
    COLUMN_WIDTH,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    label_ends,
    label_level,
    label_points,
    look,
    nothing,
    plain_log_ticks,
    style,
)
from haste.reporting.table import Stat

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawing = tuple["Figure", "pd.DataFrame"]

MIB = 2**20
BINS = np.linspace(0.0, 1.0, 51)
"""of the cohesion histograms"""


def write_figure(prefix: Path | str, name: str, sources: Sources) -> list[Path]:
    """Draw figure `name` (one of `needs.figure_names`) to PREFIX.csv, .pdf and .png; returns the paths.

    Raises DataError where it shows runs and none has finished.
    """
    import matplotlib.pyplot as plt

    draw = {
        "precision_memory": precision_memory,
        "precision_by_decile": precision_by_decile,
        "ablations": ablations,
        "training_curves": training_curves,
        "label_frequency": label_frequency,
        "cohesion": cohesion,
        "kernel_speedup": kernel_speedup,
        "kernel_floor": kernel_floor,
        "scale_memory": scale_memory,
    }[name]
    if sources.inputs.runs and not sources.runs:
        raise DataError(
            f"figure {name}: no run of the grid that it shows has finished. `haste drive` trains them, and so "
            "does Snakemake without only_finished."
        )
    paths = [Path(f"{prefix}{suffix}") for suffix in (".csv", ".pdf", ".png")]
    with style():
        figure, drawn = draw(sources)
        with atomic(paths[0]) as temporary:
            drawn.to_csv(temporary, index=False)
        for path in paths[1:]:
            # without the date, the same numbers give the same file
            metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
            with atomic(path) as temporary:
                figure.savefig(temporary, metadata=metadata)
        plt.close(figure)
    return paths


def precision_memory(sources: Sources) -> Drawing:
    """P@1 against memory: on a GPU the allocated peak, on a CPU the exactly counted state.

    A CPU's peak is that of the process, most of it interpreter and libraries, which hides what the
    methods differ in. The memory of a linear method is of another kind (no encoder, no optimiser):
    it is a level line, left out where it lies below half of every trained method's P@1.
    """
    import pandas as pd

    on_gpu = all(run.on_gpu for run in sources.runs if run.history is not None)
    column = "peak_train_bytes" if on_gpu else "state_bytes"
    rows = []
    for dataset in sources.grid.datasets:
        trained = _summaries(sources, dataset, "trained", column)
        floor = min((row["P@1 mean"] for row in trained), default=0.0) / 2
        linear = _summaries(sources, dataset, "linear", column)
        rows += trained + [
            {**row, f"{column} mean": None} for row in linear if row["P@1 mean"] >= floor
        ]
    drawn = pd.DataFrame(rows)
    figure, panels = _panels(1, sources.grid.datasets, width=1.6 * COLUMN_WIDTH, height=3.9)
    for axes, dataset in zip(panels[0], sources.grid.datasets, strict=True):
        part = drawn[drawn["dataset"] == dataset]
        names = []
        for row in part.to_dict("records"):
            shown = look(row["method"])
            title, y = method(row["method"]).title, row["P@1 mean"]
            if pd.isna(row[f"{column} mean"]):
                label_level(axes, y, f"{title} (linear)", shown.colour)
                continue
            x = row[f"{column} mean"] / MIB
            axes.errorbar(
                x,
                y,
                yerr=_half(row["P@1 std"]),
                fmt=shown.marker,
                color=shown.colour,
                markerfacecolor=shown.face,
                markersize=shown.size,
                capsize=2,
                elinewidth=1,
                zorder=3,
            )
            names.append((x, y, title, shown.colour))
        axes.set_xscale("log")
        axes.margins(x=0.22, y=0.16)
        plain_log_ticks(axes)
        axes.set_title(dataset)
        axes.set_xlabel(
            "Peak allocated on the GPU in training (MiB)"
            if on_gpu
            else "Parameters, optimiser state and indices (MiB)"
        )
        label_points(axes, names)
    panels[0][0].set_ylabel("P@1 on test (%)")
    return figure, drawn


def precision_by_decile(sources: Sources) -> Drawing:
    """What the labels of each tenth of the training positives, head to tail, add to P@5, and how
    much of it is recalled."""
    import pandas as pd

    rows = []
    for dataset in sources.grid.datasets:
        for row in sources.methods():
            runs = sources.of(dataset, row.name)
            for i in range(10 if runs else 0):
                entry = {
                    "dataset": dataset,
                    "method": row.name,
                    "decile": i + 1,
                    "seeds": len(runs),
                }
                for key in ("P@5", "recall"):
                    stat = Stat.of([run.deciles[i][key] for run in runs])
                    entry[f"{key} mean"] = stat and stat.mean
                    entry[f"{key} std"] = stat and stat.std
                rows.append(entry)
    drawn = pd.DataFrame(rows)
    figure, panels = _panels(
        2, sources.grid.datasets, width=1.5 * COLUMN_WIDTH, height=5.6, sharex=True
    )
    for column, dataset in enumerate(sources.grid.datasets):
        part = drawn[drawn["dataset"] == dataset]
        for row, key in enumerate(("P@5", "recall")):
            axes = panels[row][column]
            for name, lines in part.groupby("method", sort=False):
                _line(axes, name, lines["decile"], lines[f"{key} mean"], lines[f"{key} std"])
        panels[0][column].set_title(dataset)
        panels[1][column].set_xlabel("Tenth of the training positives (1: most frequent labels)")
        panels[1][column].set_xticks(range(1, 11))
    panels[0][0].set_ylabel("Part of P@5 (points)")
    panels[1][0].set_ylabel("Recall@100 (%)")
    _legend(figure, panels[0][-1])
    return figure, drawn


def ablations(sources: Sources) -> Drawing:
    """Change in P@1 of each variant to its preset, with the paired bootstrap interval."""
    import pandas as pd

    rows = []
    for name in sources.grid.ablations:
        chosen = ablation(name)
        titles = {chosen.variant_name(value): value for value in chosen.variants}
        for dataset in sources.grid.ablation_datasets:
            variants = sources.ablation(name, dataset)
            preset = next(iter(variants.values()))
            done = {variant: runs for variant, runs in variants.items() if runs}
            for variant, runs in done.items() if preset and len(done) > 1 else ():
                row = {
                    "dataset": dataset,
                    "ablation": name,
                    "variant": titles.get(variant, chosen.default),
                    "preset": runs is preset,
                    "seeds": len(runs),
                    "P@1 mean": float(np.mean([run.metrics["P@1"] for run in runs])),
                    "difference": 0.0,
                    "low": 0.0,
                    "high": 0.0,
                }
                if runs is not preset:
                    found = sources.documents[dataset].difference(runs, preset, "P@1")
                    row |= {"difference": found.value, "low": found.low, "high": found.high}
                rows.append(row)
    if not rows:
        return nothing("none of the ablations is finished\n(haste plan)", {"ablation": "none"})
    drawn = pd.DataFrame(rows)
    figure, panels = _ablation_panels(drawn)
    low, high = min(0.0, drawn["low"].min()), max(0.0, drawn["high"].max())
    room = 0.28 * max(high - low, 0.1)
    panels[0][0].set_xlim(low - room, high + room)
    figure.supxlabel(
        "Change in P@1 to the preset (points), 95% interval over test documents", fontsize=9
    )
    return figure, drawn


def training_curves(sources: Sources) -> Drawing:
    """Training loss and P@1 on the validation split by epoch, mean and range over seeds."""
    import pandas as pd

    rows = []
    for run in sources.runs:
        if run.history is None:
            continue
        for epoch, loss, precision in zip(
            *(run.history[name] for name in ("epoch", "loss", "P@1")), strict=True
        ):
            rows.append(
                {
                    "dataset": run.key.dataset,
                    "method": run.key.method,
                    "seed": run.key.seed,
                    "epoch": int(epoch),
                    "loss": loss,
                    "validation P@1": precision,
                }
            )
    drawn = (
        pd.DataFrame(rows)
        .groupby(["dataset", "method", "epoch"], sort=False)
        .agg(
            seeds=("seed", "size"),
            **{
                f"{key} {name}": (key, how)
                for key in ("loss", "validation P@1")
                for name, how in (("mean", "mean"), ("low", "min"), ("high", "max"))
            },
        )
        .reset_index()
    )
    figure, panels = _panels(
        2, sources.grid.datasets, width=1.5 * COLUMN_WIDTH, height=6.4, sharex=True
    )
    for column, dataset in enumerate(sources.grid.datasets):
        part = drawn[drawn["dataset"] == dataset]
        for axes, key in zip(panels[:, column], ("loss", "validation P@1"), strict=True):
            ends = []
            for name, lines in part.dropna(subset=[f"{key} mean"]).groupby("method", sort=False):
                shown = look(name)
                low, high = lines[f"{key} low"], lines[f"{key} high"]
                axes.fill_between(
                    lines["epoch"], low, high, color=shown.colour, alpha=0.18, linewidth=0
                )
                _line(axes, name, lines["epoch"], lines[f"{key} mean"], every=5)
                ends.append((lines[f"{key} mean"].iloc[-1], method(name).title, shown.colour))
            if key == "loss":
                axes.set_yscale("log")
                plain_log_ticks(axes, "y")
            last = part["epoch"].max()
            axes.set_xlim(left=1 - 0.03 * last, right=last)
            label_ends(axes, ends)
        panels[0][column].set_title(dataset)
        panels[1][column].set_xlabel("Epoch")
        panels[1][column].xaxis.get_major_locator().set_params(integer=True)
    panels[0][0].set_ylabel("Training loss a document")
    panels[1][0].set_ylabel("P@1 on validation (%)")
    return figure, drawn


def label_frequency(sources: Sources) -> Drawing:
    """Training documents of each label by rank, both logarithmic, and where the head ends."""
    import pandas as pd

    orders = {path.parents[2].name: LabelOrder.load(path) for path in sources.inputs.orders}
    rows, cuts = [], {}
    for dataset in sources.grid.datasets:
        counts = np.sort(label_frequencies(sources.grid.layout.corpus(dataset)))[::-1]
        counts = counts[counts > 0]
        head = orders[dataset].head
        cuts[dataset] = (head, len(counts), 100.0 * counts[:head].sum() / counts.sum())
        ends = np.flatnonzero(np.diff(counts, append=0))
        starts = np.concatenate([[0], ends[:-1] + 1])
        rows += [
            {
                "dataset": dataset,
                "rank": int(rank) + 1,
                "documents": int(counts[rank]),
                "head": head,
            }
            for rank in np.unique(np.concatenate([starts, ends, [max(head, 1) - 1]]))
        ]
    drawn = pd.DataFrame(rows)
    figure, panels = _panels(1, sources.grid.datasets, width=1.4 * COLUMN_WIDTH, height=3.4)
    for axes, dataset in zip(panels[0], sources.grid.datasets, strict=True):
        part = drawn[drawn["dataset"] == dataset]
        head, n_labels, share = cuts[dataset]
        axes.plot(part["rank"], part["documents"], color=BLUE, linewidth=1.8)
        axes.fill_between(
            part["rank"], part["documents"], 0.8, where=part["rank"] <= head, color=SKY, alpha=0.35
        )
        axes.set(xscale="log", yscale="log", xlabel="Label, by rank", title=dataset)
        axes.set_ylim(bottom=0.8)
        plain_log_ticks(axes, "xy")
        if head:
            axes.axvline(head, color=VERMILION, linestyle="--", linewidth=1.2)
            axes.annotate(
                f"head: {head:,} labels ({head / n_labels:.0%}),\n{share:.0f}% of the pairs",
                (head, 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(-5, 0),
                textcoords="offset points",
                ha="right",
                va="top",
                color=VERMILION,
                fontsize=8,
            )
            axes.annotate(
                f"tail: {n_labels - head:,}",
                (head, 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(5, 0),
                textcoords="offset points",
                va="top",
                color=GREY,
                fontsize=8,
            )
    panels[0][0].set_ylabel("Training documents")
    return figure, drawn


def cohesion(sources: Sources) -> Drawing:
    """Histograms of the groups' cohesion, one row a grouping."""
    import pandas as pd

    rows = []
    groupings = dict.fromkeys(grouping for _, grouping, _ in cohesion_orders(sources))
    for dataset, grouping, order in cohesion_orders(sources):
        counts, _ = np.histogram(order.cohesion, BINS)
        mean = float(order.cohesion.mean()) if order.cohesion.size else None
        rows += [
            {
                "dataset": dataset,
                "grouping": grouping,
                "low": round(float(low), 6),
                "high": round(float(high), 6),
                "groups": int(count),
                "mean cohesion": mean,
            }
            for low, high, count in zip(BINS, BINS[1:], counts, strict=False)
        ]
    drawn = pd.DataFrame(rows)
    figure, panels = _panels(
        len(groupings),
        sources.grid.datasets,
        width=1.4 * COLUMN_WIDTH,
        height=0.6 + 1.05 * len(groupings),
        sharex=True,
    )
    colours = dict(zip(groupings, (VERMILION, ORANGE, BLUE, GREY), strict=False))
    for column, dataset in enumerate(sources.grid.datasets):
        for axes, grouping in zip(panels[:, column], groupings, strict=True):
            part = drawn[(drawn["dataset"] == dataset) & (drawn["grouping"] == grouping)]
            axes.bar(
                part["low"],
                part["groups"],
                width=part["high"] - part["low"],
                align="edge",
                color=colours[grouping],
                edgecolor="white",
                linewidth=0.4,
            )
            mean = part["mean cohesion"].iloc[0]
            words = "no embeddings" if mean is None or np.isnan(mean) else f"mean {mean:.2f}"
            axes.text(0.01, 0.93, grouping, transform=axes.transAxes, va="top", fontweight="bold")
            axes.text(0.01, 0.68, words, transform=axes.transAxes, va="top", fontsize=8)
            if words != "no embeddings":
                axes.axvline(mean, color="black", linewidth=1.2)
            else:
                axes.set_yticks([])
            axes.grid(axis="x", visible=False)
        panels[0][column].set_title(dataset)
        panels[-1][column].set_xlabel("Cohesion: mean cosine of a group's labels to its mean")
        panels[-1][column].set_xlim(0, 1)
    figure.supylabel("Groups", fontsize=9)
    return figure, drawn


def _summaries(sources: Sources, dataset: str, kind: str, column: str) -> list[dict]:
    """P@1 and `column` of each method of a kind: mean and deviation over seeds."""
    rows = []
    for row in sources.methods():
        runs = sources.of(dataset, row.name)
        if row.kind != kind or not runs:
            continue
        frame = run_frame(runs)
        entry = {"dataset": dataset, "method": row.name, "seeds": len(runs)}
        for key in ("P@1", column):
            stat = Stat.of(frame[key].tolist())
            entry[f"{key} mean"] = stat and stat.mean
            entry[f"{key} std"] = stat and stat.std
        rows.append(entry)
    return rows


def _line(
    axes: Axes,
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    std: Sequence[float] | None = None,
    every: int = 1,
) -> None:
    """One method's line, with error bars where there are several seeds, a marker every so often."""
    shown = look(name)
    if std is not None and not all(_half(s) is None for s in std):
        axes.errorbar(
            x,
            y,
            yerr=np.nan_to_num(np.asarray(std, float)),
            fmt="none",
            ecolor=shown.colour,
            elinewidth=0.8,
        )
    axes.plot(
        x,
        y,
        color=shown.colour,
        linestyle=shown.dash,
        marker=shown.marker,
        markersize=0.75 * shown.size,
        markerfacecolor=shown.face,
        markevery=every,
        linewidth=2.0 if name == "haste" else 1.2,
        zorder=4 if name == "haste" else 3,
        label=method(name).title,
    )


def _ablation_panels(drawn: pd.DataFrame) -> tuple[Figure, np.ndarray]:
    """One panel an ablation and data set, two beside each other: the figure and axes [rows, columns]."""
    parts = list(drawn.groupby(["dataset", "ablation"], sort=False))
    across = min(2, len(parts))
    down = -(-len(parts) // across)
    bars = [max(len(part) for _, part in parts[i * across : (i + 1) * across]) for i in range(down)]
    figure, panels = _grid(
        down,
        across,
        (across * 1.25 * COLUMN_WIDTH, sum(0.45 + 0.21 * n for n in bars) + 0.4),
        sharex=True,
        gridspec_kw={"height_ratios": [n + 1 for n in bars]},
    )
    several = drawn["dataset"].nunique() > 1
    for axes, ((dataset, name), part) in zip(panels.ravel(), parts, strict=False):
        _ablation_panel(axes, part)
        title = ablation(name).title + (f" ({dataset})" if several else "")
        axes.set_title(textwrap.fill(title, 34))
    for axes in panels.ravel()[len(parts) :]:
        axes.remove()
        # the panel above is now the lowest of its column
        panels[-2][-1].tick_params(labelbottom=True)
    return figure, panels


def _ablation_panel(axes: Axes, part: pd.DataFrame) -> None:
    """Bars of the difference to the preset, whose P@1 stands beside the line at 0."""
    places = np.arange(len(part))[::-1]
    colours = np.where(part["difference"] < 0, ORANGE, SKY)
    axes.barh(places, part["difference"], height=0.55, color=colours)
    bars = part[~part["preset"]]
    axes.errorbar(
        bars["difference"],
        places[~part["preset"].to_numpy()],
        xerr=[bars["difference"] - bars["low"], bars["high"] - bars["difference"]],
        fmt="none",
        ecolor="black",
        elinewidth=1,
        capsize=2.5,
    )
    axes.axvline(0, color="black", linewidth=1.1)
    for place, row in zip(places, part.to_dict("records"), strict=True):
        left = row["difference"] < 0
        axes.annotate(
            f"{row['P@1 mean']:.1f}",
            (row["low"] if left else row["high"], place),
            xytext=(-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(
        places,
        [f"{v} (preset)" if p else v for v, p in zip(part["variant"], part["preset"], strict=True)],
    )
    axes.grid(axis="y", visible=False)


def _panels(
    rows: int, datasets: Sequence[str], *, width: float, height: float, sharex: bool = False
) -> tuple[Figure, np.ndarray]:
    """A column of panels for each data set: the figure and axes [rows, data sets]."""
    return _grid(rows, len(datasets), (width * len(datasets), height), sharex=sharex)


def _grid(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, np.ndarray]:
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=size, squeeze=False, **options)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, titles = axes.get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside right center", handlelength=2.6)


def _half(std: float | None) -> float | None:
    return None if std is None or np.isnan(std) else float(std)
