"""The figures of a grid: each function draws one and returns it with the data frame it shows; its docstring
is the caption."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from haste.grid import GridConfig
from haste.presets import ablation, method
from haste.report.registry import Inputs, ablation_runs, figure, order_paths, unique
from haste.report.render import MIB, mean_std
from haste.report.runs import place, run_row
from haste.report.style import (
    BLUE,
    COLUMN_WIDTH,
    GREY,
    LABEL_SIZE,
    ORANGE,
    SKY,
    VERMILION,
    by_method,
    empty_figure,
    label_below,
    label_level,
    legend_outside,
    marker_style,
    method_title,
    panels,
    plain_log_ticks,
)
from haste.runs import is_trained

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from haste.report.load import Sources

    Drawing = tuple[Figure, pd.DataFrame]


def _main(grid: GridConfig) -> Inputs:
    return Inputs(runs=tuple(grid.main_runs()))


MEASURED = ("P@1", "P@5", "PSP@5", "R@100")


@figure("precision_memory", "Accuracy against memory", inputs=_main)
def precision_memory(sources: Sources) -> Drawing:
    """P@1, P@5, PSP@5 and R@100 against the memory of the output layer; up and to the left is better.

    That is weights, index sets and momentum, counted exactly, on a logarithmic axis; encoder and activations,
    which are the same for all, come on top. The other axis does not start at 0: its label says where. Error
    bars are the standard deviation over seeds. A method below half of the median is named at the lower edge, with
    its value. A dotted level line is a linear method, whose memory is of another kind; one that lies below
    half of all others is left out.
    """
    import pandas as pd

    column = "layer_bytes"
    datasets = sources.grid.datasets
    runs = pd.DataFrame(map(run_row, sources.runs))
    drawn = _summary(runs, sources, ["dataset", "method"], [*MEASURED, column])
    linear = drawn["method"].map(lambda name: method(name).kind) == "linear"
    drawn.loc[linear, f"{column} mean"] = None
    chart, axes_of = panels(2, 2 * len(datasets), (3.2 * COLUMN_WIDTH * len(datasets), 8))
    for number, dataset in enumerate(datasets):
        part = drawn[drawn["dataset"] == dataset]
        # a column of all rows would bring them back where the data set has none
        part = part.assign(x=part[f"{column} mean"] / MIB)
        of_dataset = axes_of[:, 2 * number : 2 * number + 2].ravel()
        for axes, name in zip(of_dataset, MEASURED, strict=True):
            _against_memory(axes, part, name)
        of_dataset[0].set_title(_title(sources, dataset))
    legend_outside(chart)
    return chart, drawn


def _against_memory(axes: Axes, part: pd.DataFrame, name: str) -> None:
    """One metric of the methods of a data set; `x`: MiB of the output layer, none for linear ones."""
    import seaborn as sns

    mean = f"{name} mean"
    points = part.dropna(subset="x")
    levels = part[part["x"].isna() & ~(part[mean] < points[mean].min() / 2)]
    below = points[points[mean] < points[mean].median() / 2]
    points = points.drop(below.index)
    if not points.empty:
        sns.scatterplot(points, x="x", y=mean, **by_method(points["method"]), zorder=3, ax=axes)
    for row in points.to_dict("records"):
        colour = marker_style(row["method"]).colour
        std = row[f"{name} std"]
        axes.errorbar(row["x"], row[mean], yerr=std, color=colour, capsize=2, elinewidth=1)
    for row in levels.to_dict("records"):
        title, colour = method_title(row["method"]), marker_style(row["method"]).colour
        label_level(axes, row[mean], f"{title} (linear)", colour)
    for row in below.to_dict("records"):
        title, colour = method_title(row["method"]), marker_style(row["method"]).colour
        label_below(axes, row["x"], f"{title}: {row[mean]:.1f}", colour)
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.16)
    plain_log_ticks(axes)
    axes.set_xlabel("Output layer (MiB, logarithmic)")
    axes.set_ylabel(f"{name} on test (%), axis from {axes.get_ylim()[0]:.1f}")


@figure("precision_by_decile", "Precision by label frequency", inputs=_main)
def precision_by_decile(sources: Sources) -> Drawing:
    """Where precision comes from, by decile of label frequency: each decile has a tenth of the training
    positives, the first those of the most frequent labels.

    Above, what each decile adds to P@5: the ten values of a method sum to its P@5. Below, the share of a
    decile's positives among the 100 predictions. Error bars are the standard deviation over seeds. A method
    that gains on the tail is higher on the right, where most labels are.
    """
    import pandas as pd

    shown = ("P@5", "recall")
    frame = pd.DataFrame(
        {
            "dataset": run.key.dataset,
            "method": run.key.method,
            "decile": row["decile"],
            **{name: row[name] for name in shown},
        }
        for run in sources.runs
        for row in run.deciles
    )
    drawn = _summary(frame, sources, ["dataset", "method", "decile"], shown)
    chart, axes_of = _lines_by_method(
        sources,
        frame,
        "decile",
        {"P@5": "Part of P@5 (points)", "recall": "Recall@100 (%)"},
        errorbar="sd",
        err_style="bars",
    )
    for axes in axes_of.ravel():
        axes.set(xticks=range(1, 11))
        axes.set_ylim(bottom=0)
    for axes in axes_of[-1]:
        axes.set_xlabel("Decile of label frequency (1: most frequent labels)")
    return chart, drawn


def _lines_by_method(
    sources: Sources, frame: pd.DataFrame, x: str, shown: Mapping[str, str], **options: Any
) -> tuple[Figure, np.ndarray]:
    """A panel for each column of `shown` (with its label) and data set, in it a line a method over `x`."""
    import seaborn as sns

    datasets = sources.grid.datasets
    size = (1.5 * COLUMN_WIDTH * len(datasets), 6.0)
    chart, axes_of = panels(len(shown), len(datasets), size, sharex=True)
    for column, dataset in enumerate(datasets):
        for axes, name in zip(axes_of[:, column], shown, strict=True):
            part = frame[frame["dataset"] == dataset].dropna(subset=name)
            # of some data sets no run may have finished
            if not part.empty:
                styles = by_method(part["method"], lines=True)
                sns.lineplot(part, x=x, y=name, **styles, **options, ax=axes)
            axes.set_ylabel("" if column else shown[name])
        axes_of[0][column].set_title(_title(sources, dataset))
    legend_outside(chart)
    return chart, axes_of


def _title(sources: Sources, dataset: str) -> str:
    return place(dataset, [run for run in sources.runs if run.key.dataset == dataset])


@figure(
    "ablations",
    "Ablations",
    # values of each document need the truth
    inputs=lambda grid: Inputs(
        runs=ablation_runs(grid, grid.ablations), corpora=grid.ablation_datasets
    ),
    applies=lambda grid: bool(grid.ablations),
)
def ablations(sources: Sources) -> Drawing:
    """Every ablation of the grid: the change in P@1 to the preset, which is the line at 0. That is the preset of
    ``haste``, and in the corrections to the released code that of ``haste-released``.

    Error bars are 95% intervals from resampling seeds and test documents, paired with the preset; where one crosses
    the line, they cannot tell the variant from the preset. The numbers are the P@1 themselves.
    Where a variant has one seed, differences as small as those between seeds mean nothing.
    """
    import numpy as np
    import pandas as pd

    rows = []
    for name in sources.grid.ablations:
        chosen = ablation(name)
        for dataset in sources.grid.ablation_datasets:
            variants = sources.ablation(name, dataset)
            preset = next(iter(variants.values()))
            done = {variant: runs for variant, runs in variants.items() if runs}
            for variant, runs in done.items() if preset and len(done) > 1 else ():
                row = {
                    "dataset": dataset,
                    "ablation": name,
                    "variant": chosen.variant_title(variant).removesuffix(" (preset)"),
                    "preset": runs is preset,
                    "seeds": len(runs),
                    "P@1 mean": float(np.mean([run.metrics["P@1"] for run in runs])),
                }
                difference = (0.0, 0.0, 0.0)
                if runs is not preset:
                    difference = sources.documents[dataset].difference(runs, preset, "P@1")
                rows.append(row | dict(zip(("difference", "low", "high"), difference, strict=True)))
    if not rows:
        return empty_figure("none of the ablations is finished\n(haste plan)", {"ablation": "none"})
    drawn = pd.DataFrame(rows)

    # a panel an ablation and data set, two beside each other
    parts = list(drawn.groupby(["dataset", "ablation"], sort=False))
    across = min(2, len(parts))
    bars = [
        max(len(part) for _, part in parts[i : i + across]) for i in range(0, len(parts), across)
    ]
    chart, axes_of = panels(
        len(bars),
        across,
        (across * 1.25 * COLUMN_WIDTH, sum(0.45 + 0.21 * n for n in bars) + 0.4),
        sharex=True,
        gridspec_kw={"height_ratios": [n + 1 for n in bars]},
    )
    for axes, ((dataset, name), part) in zip(axes_of.ravel(), parts, strict=False):
        _ablation_panel(axes, part)
        several = f" ({dataset})" if drawn["dataset"].nunique() > 1 else ""
        axes.set_title(textwrap.fill(ablation(name).title + several, 34))
    for axes in axes_of.ravel()[len(parts) :]:
        axes.remove()
        # the panel above is now the lowest of its column
        axes_of[-2][-1].tick_params(labelbottom=True)
    low, high = min(0.0, drawn["low"].min()), max(0.0, drawn["high"].max())
    margin = 0.28 * max(high - low, 0.1)
    axes_of[0][0].set_xlim(low - margin, high + margin)
    label = "Change in P@1 to the preset (points), 95% interval over seeds and test documents"
    # a single panel is narrower than the label
    chart.supxlabel(textwrap.fill(label, 44) if len(parts) == 1 else label, fontsize=9)
    return chart, drawn


def _ablation_panel(axes: Axes, part: pd.DataFrame) -> None:
    """Bars of the difference to the preset, whose P@1 stands beside the line at 0."""
    import seaborn as sns

    names = part["variant"].where(~part["preset"], part["variant"] + " (preset)")
    colours = [ORANGE if difference < 0 else SKY for difference in part["difference"]]
    sns.barplot(
        x=part["difference"],
        y=names,
        hue=names,
        palette=colours,
        saturation=1,
        width=0.55,
        ax=axes,
    )
    axes.axvline(0, color="black", linewidth=1.1)
    for bar, row in enumerate(part.to_dict("records")):
        left = row["difference"] < 0
        ends = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
        if not row["preset"]:
            axes.errorbar(
                row["difference"], bar, xerr=ends, ecolor="black", elinewidth=1, capsize=2.5
            )
        axes.annotate(
            f"{row['P@1 mean']:.1f}",
            (row["low"] if left else row["high"], bar),
            xytext=(-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=8,
        )
    axes.set(xlabel="", ylabel="")
    axes.grid(axis="y", visible=False)


@figure(
    "training_curves",
    "Training curves",
    inputs=lambda grid: Inputs(runs=unique(key for key in grid.main_runs() if is_trained(key))),
    applies=lambda grid: any(is_trained(key) for key in grid.main_runs()),
)
def training_curves(sources: Sources) -> Drawing:
    """Training loss (a document, logarithmic) and P@1 on the validation split by epoch.

    Lines are means over seeds, bands reach from the lowest to the highest seed. Losses of different methods
    are comparable where they are the binary cross-entropy summed over the labels: of all but
    ``spartex-released``, a squared hinge loss, and the label trees (``lightxml``, ``cascadexml``), summed over
    shortlists. Spartex's auxiliary loss is not in it. A loss falls for as long as one trains; whether a run has
    converged is judged by validation.
    """
    import pandas as pd

    shown = ("loss", "validation P@1")
    frame = pd.concat(
        run.history.rename(columns={"P@1": "validation P@1"}).assign(
            dataset=run.key.dataset,
            method=run.key.method,
            seed=run.key.seed,
            epoch=run.history["epoch"].astype(int),
        )
        for run in sources.runs
        if run.history is not None
    )
    statistics = (("mean", "mean"), ("low", "min"), ("high", "max"))
    drawn = (
        frame.groupby(["dataset", "method", "epoch"], sort=False)
        .agg(
            seeds=("seed", "size"),
            **{f"{key} {name}": (key, how) for key in shown for name, how in statistics},
        )
        .reset_index()
    )
    chart, axes_of = _lines_by_method(
        sources,
        frame,
        "epoch",
        {
            "loss": "Training loss a document (logarithmic)",
            "validation P@1": "P@1 on validation (%)",
        },
        # from the lowest to the highest
        errorbar=("pi", 100),
        markevery=5,
    )
    for loss, validated in axes_of.T:
        loss.set_yscale("log")
        plain_log_ticks(loss, "y")
        validated.set_xlabel("Epoch")
        validated.set_ylim(bottom=0)
        validated.xaxis.get_major_locator().set_params(integer=True)
    return chart, drawn


@figure(
    "label_frequency",
    "Label frequencies",
    # the order of the preset knows where the head ends
    inputs=lambda grid: Inputs(
        corpora=grid.datasets, orders=order_paths(grid, grid.datasets, [None])
    ),
)
def label_frequency(sources: Sources) -> Drawing:
    """Training documents of each label by rank, both axes logarithmic.

    The dashed line is where the dense head ends and the sparse tail begins; the shaded labels, few as they
    are, hold the stated share of all document-label pairs.
    """
    import numpy as np
    import pandas as pd
    import seaborn as sns

    from haste.data.corpus import load_corpus

    frames = []
    datasets = sources.grid.datasets
    chart, axes_of = panels(1, len(datasets), (1.4 * COLUMN_WIDTH * len(datasets), 3.4))
    heads = {dataset: order.head for dataset, _, order in sources.orders()}
    for axes, dataset in zip(axes_of[0], datasets, strict=True):
        corpus = load_corpus(sources.grid.layout.corpus(dataset))
        counts = np.sort(corpus.label_frequencies())[::-1]
        counts, head = counts[counts > 0], heads[dataset]
        # both ends of each step of the falling staircase
        ends = np.flatnonzero(np.diff(counts, append=0))
        starts = np.concatenate([[0], ends[:-1] + 1])
        ranks = np.unique(np.concatenate([starts, ends, [max(head, 1) - 1]]))
        part = pd.DataFrame(
            {"dataset": dataset, "rank": ranks + 1, "documents": counts[ranks], "head": head}
        )
        frames.append(part)
        sns.lineplot(part, x="rank", y="documents", estimator=None, color=BLUE, ax=axes)
        shaded = part[part["rank"] <= head]
        axes.fill_between(shaded["rank"], shaded["documents"], 0.8, color=SKY, alpha=0.35)
        axes.set(xscale="log", yscale="log", ylabel="", title=dataset)
        axes.set_xlabel("Label, by rank (logarithmic)")
        axes.set_ylim(bottom=0.8)
        plain_log_ticks(axes, "xy")
        if head:
            share = counts[:head].sum() / counts.sum()
            axes.axvline(head, color=VERMILION, linestyle="--", linewidth=1.2)
            label = f"head: {head:,} labels ({head / len(counts):.0%}), \n{share:.0%} of the pairs "
            corner = {"transform": axes.get_xaxis_transform(), "va": "top", "fontsize": LABEL_SIZE}
            axes.text(head, 0.97, label, ha="right", color=VERMILION, **corner)
            axes.text(head, 0.97, f" tail: {len(counts) - head:,}", color=GREY, **corner)
    axes_of[0][0].set_ylabel("Training documents (logarithmic)")
    return chart, pd.concat(frames)


def _summary(
    frame: pd.DataFrame, sources: Sources, by: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """Mean and deviation over seeds of `columns`, by data set and method in the order of the tables."""
    import pandas as pd

    names = [f"{name} {statistic}" for name in columns for statistic in ("mean", "std")]
    order = [(d, m.name) for d in sources.grid.datasets for m in sources.methods()]
    rows = []
    for key, part in frame.groupby(list(by), sort=False):
        row = dict(zip(by, key, strict=True)) | {"seeds": len(part)}
        for name in columns:
            row |= mean_std(name, part[name])
        rows.append(row)
    rows.sort(key=lambda row: order.index((row["dataset"], row["method"])))
    return pd.DataFrame(rows, columns=[*by, "seeds", *names])
