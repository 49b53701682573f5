"""The tables of a grid: each function turns loaded sources into a table, and its docstring is the caption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from haste.config import GROUPINGS
from haste.grid import DEFAULT_VARIANT, GridConfig
from haste.metrics.names import HEADLINE
from haste.paths import SPLITS
from haste.presets import Ablation, Method, ablation, ablations, head_pairs, method
from haste.report.claims import claimed_runs
from haste.report.convergence import CONVERGED_NOTE, has_converged
from haste.report.published import PEAK_MEMORY, SECONDS_PER_EPOCH
from haste.report.registry import Inputs, ablation_runs, order_paths, table
from haste.report.render import GIB, MIB, MILLION, OPEN, Column, Table, interval, mean_std
from haste.report.runs import (
    WITHOUT_RECIPROCAL,
    Run,
    mean_late_gain,
    run_cells,
    run_note,
    run_row,
    time_notes,
    untuned_note,
)

if TYPE_CHECKING:
    from haste.report.load import Sources

ACCURACY = ("P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5", "nDCG@5", "R@100")
PUBLISHED_NAMES = {"peak_train_bytes": PEAK_MEMORY, "epoch_seconds": SECONDS_PER_EPOCH}
MEAN_NOTE = "Metrics in percent on the test split: mean ± sample standard deviation over seeds."
CONFUSION_RANKS = (1, 5)
"""of predictions in which confusions are counted"""

Row = dict[str, Any]


@table(
    "main",
    "All methods",
    inputs=lambda grid: Inputs(runs=tuple(grid.main_runs())),
    all_methods=True,
)
def main_table(sources: Sources) -> Table:
    """Every method of the grid, trained alike but for what its preset changes.

    Precision (P), propensity-scored precision (PSP, which weighs rare labels more), nDCG and recall (R), then
    memory (Layer is the output layer with its indices and momentum), time and parameters. Compare two methods
    only where both have converged. "not trained here" marks methods that this project has not implemented.
    Numbers of papers appear beside ours only on data sets that the papers use.
    """
    columns = [
        Column("dataset", "Data set"),
        Column("method", "Method"),
        Column("runs", "Runs"),
        *(Column(name, name, best=True) for name in ACCURACY),
        *(Column(n, n.replace("without", "w/o"), best=True) for n in WITHOUT_RECIPROCAL.values()),
        Column("peak_train_bytes", "Peak memory (GiB)", digits=2, scale=GIB),
        Column("state_bytes", "State (MiB)", scale=MIB),
        Column("layer_bytes", "Layer (MiB)", scale=MIB),
        Column("epoch_seconds", "Epoch (s)"),
        Column("parameters", "Parameters (M)", digits=2, scale=MILLION),
        Column("loss", "Training loss", digits=2),
        Column("late_gain", "Late gain", digits=2, signed=True),
        Column("converged", "Converged"),
    ]
    rows = [
        _main_row(sources, dataset, method, columns)
        for dataset in sources.grid.datasets
        for method in sources.methods()
    ]
    columns = _with_paper(columns, rows)
    reciprocal = any(f"{name} mean" in row for row in rows for name in WITHOUT_RECIPROCAL.values())
    if not reciprocal:
        columns = [c for c in columns if c.key not in WITHOUT_RECIPROCAL.values()]
    notes = [
        MEAN_NOTE + " Bold: the best of the column.",
        run_note(sources.runs),
        *time_notes(sources.runs),
        *(MEMORY_NOTES[on_gpu] for on_gpu in sorted({run.on_gpu for run in sources.runs})),
        "State: parameters, optimiser state and index sets, counted exactly.",
        CONVERGED_NOTE,
        *untuned_note(sources.grid),
        *(f"{row.title}: {row.note}." for row in sources.methods() if row.note),
    ]
    if reciprocal:
        notes.append(
            "w/o reciprocal pairs: test pairs (i, j) whose reverse (j, i) is a training pair are taken out of "
            "truth and predictions."
        )
    if any(column.key.endswith(" paper") for column in columns):
        notes.append(
            "(paper): published on the same data set, on other hardware and with BERT-size encoders."
        )
    return Table.of(columns, rows, notes, section="dataset")


@table("datasets", "Data sets", inputs=lambda grid: Inputs(corpora=grid.datasets))
def datasets_table(sources: Sources) -> Table:
    """Size and shape of the data sets, counted from the files that the methods train on.

    Most labels have few documents: that is the regime the method is made for. Since reciprocal pairs could be
    answered by turning round what was seen, the table ``main`` also gives precision without them.
    """
    from haste.data.corpus import RARE, load_corpus

    cells = []
    for dataset in sources.grid.datasets:
        info = load_corpus(sources.grid.layout.corpus(dataset)).info
        counted = info.statistics
        cells.append(
            {
                Column("dataset", "Data set"): dataset,
                **{Column(s, s.capitalize(), digits=0): info.documents[s] for s in SPLITS},
                Column("labels", "Labels", digits=0): info.n_labels,
                Column("extra_labels", "Unseen labels", digits=0): info.n_extra,
                Column(
                    "labels_per_document", "Labels/document", digits=2
                ): counted.labels_per_document,
                Column(
                    "documents_per_label", "Documents/label", digits=2
                ): counted.points_per_label,
                Column("rare_labels_percent", f"Labels ≤ {RARE} documents (%)"): 100.0
                * counted.rare_labels,
                Column("seen_positives_percent", "Test positives seen (%)"): 100.0
                * counted.seen["test"],
                Column("reciprocal_percent", "Reciprocal (%)"): 100.0 * counted.reciprocal["test"],
                Column("words_per_document", "Words/document"): counted.words_per_document,
                Column("propensity", "Propensity A / B"): (
                    f"{info.propensity_a:g} / {info.propensity_b:g}"
                ),
                Column("licence", "Licence"): info.licence,
            }
        )
    notes = (
        "Counted from the data. Labels are those with a training document; labels a document, documents "
        "a label and words are of the training split.",
        "Unseen labels occur only in validation or test: they stay in the truth, nothing can predict "
        "them, and the share of test positives seen says how much that costs.",
        "Reciprocal: share of test pairs (i, j) whose reverse (j, i) is a training pair.",
    )
    return Table.of_cells(cells, notes)


ABLATION_CAPTION = """{question}

The first row is the preset of ``{method}``; each other row changes only what it names. Where the interval of
Δ P@1 contains 0, seeds and test documents cannot tell the two apart. Where a variant has one seed, differences
as small as those between seeds mean nothing. Layer is the output layer with its indices and momentum.
"""


def _register_ablation(chosen: Ablation) -> None:
    table(
        f"ablation_{chosen.name}",
        f"Ablation: {chosen.title.lower()}",
        inputs=lambda grid: Inputs(
            runs=ablation_runs(grid, [chosen.name]), corpora=grid.ablation_datasets
        ),
        applies=lambda grid: chosen.name in grid.ablations,
        caption=ABLATION_CAPTION.format(question=chosen.question, method=chosen.method),
        category="Ablations",
    )(lambda sources: ablation_table(chosen, sources))


def _ablation_columns(
    *names: Column, difference: str = "Δ P@1 [95%]", costs: Iterable[Column] = ()
) -> list[Column]:
    return [
        Column("dataset", "Data set"),
        *names,
        *(Column(name, name, best=True) for name in HEADLINE),
        Column("difference", difference, digits=2),
        *costs,
        Column("layer_bytes", "Layer (MiB)", scale=MIB),
        Column("seeds", "Seeds", digits=0),
        Column("converged", "Converged"),
    ]


def _ablation_row(
    sources: Sources, dataset: str, runs: Sequence[Run], reference: Sequence[Run], **cells: str
) -> Row:
    """Statistics of `runs`, and their difference in P@1 to `reference` unless they are that themselves."""
    row: Row = {"dataset": dataset, **cells}
    if not runs:
        return row | {"difference": OPEN}
    row |= _statistics(runs, (*HEADLINE, "epoch_seconds", "layer_bytes"))
    row |= {"seeds": len(runs), "converged": converged(runs)}
    if reference and runs is not reference:
        difference = sources.documents[dataset].difference(runs, reference, "P@1")
        row |= interval("difference", *difference)
    return row


def ablation_table(chosen: Ablation, sources: Sources) -> Table:
    """The preset and each variant, with the difference in P@1 to the preset."""
    columns = _ablation_columns(
        Column("variant", chosen.title), costs=[Column("epoch_seconds", "Epoch (s)")]
    )
    rows: list[Row] = []
    for dataset in sources.grid.ablation_datasets:
        variants = sources.ablation(chosen.name, dataset)
        preset = next(iter(variants.values()))
        rows += [
            _ablation_row(sources, dataset, runs, preset, variant=chosen.variant_title(variant))
            for variant, runs in variants.items()
        ]
    one_seed = "; one seed: resampled are documents alone, the spread between seeds is not in it."
    notes = [
        f"Variants of {chosen.method}; all else is its preset. {MEAN_NOTE}",
        "Δ P@1: to the preset, same seeds, in points, with the paired bootstrap interval (95%) over "
        "seeds and test documents" + (one_seed if len(sources.grid.ablation_seeds) == 1 else "."),
        run_note(sources.runs),
        *time_notes(sources.runs),
        CONVERGED_NOTE,
    ]
    return Table.of(columns, rows, notes, section="dataset")


for _ablation in ablations().values():
    _register_ablation(_ablation)


def _head_pairs(grid: GridConfig) -> list[tuple[str, str]]:
    return [pair for pair in head_pairs() if set(pair) <= set(grid.methods)]


@table(
    "ablation_head",
    "Ablation: a dense head before each sparse pattern",
    inputs=lambda grid: Inputs(
        runs=tuple(
            key for key in grid.main_runs() if any(key.method in pair for pair in _head_pairs(grid))
        ),
        corpora=grid.datasets,
    ),
    applies=lambda grid: bool(_head_pairs(grid)),
    category="Ablations",
)
def head_table(sources: Sources) -> Table:
    """What does HASTE's dense head bring, and what does its pattern?

    Every sparse pattern without a head and with the same one, each at its own settings of the main table,
    chosen with equal budgets. At an equal head, rows differ in the pattern alone.
    """
    columns = _ablation_columns(
        Column("method", "Pattern"),
        Column("head", "Head"),
        difference="Δ P@1 of the head [95%]",
    )
    rows: list[Row] = []
    for dataset in sources.grid.datasets:
        for without, headed in _head_pairs(sources.grid):
            reference = sources.of(dataset, without)
            for name, head, runs in (
                (without, "without", reference),
                (headed, "with", sources.of(dataset, headed)),
            ):
                cells = {"method": method(name).title, "head": head}
                rows.append(_ablation_row(sources, dataset, runs, reference, **cells))
    notes = [
        f"Each row at its own settings of the main table. {MEAN_NOTE}",
        "Δ P@1: with the head - without, in points, with the paired bootstrap interval (95%) over seeds and "
        "test documents (documents alone where there is one seed).",
        run_note(sources.runs),
        CONVERGED_NOTE,
    ]
    return Table.of(columns, rows, notes, section="dataset")


@table(
    "grouping_cohesion",
    "Cohesion of the label groups",
    inputs=lambda grid: Inputs(orders=order_paths(grid, grid.datasets, GROUPINGS)),
)
def cohesion_table(sources: Sources) -> Table:
    """How alike the labels of a group are, for each way to group the tail.

    The embedding of a label is the mean of the untrained encoder's features over its training documents; a
    cohesion of 1 would be identical labels. Random groups show what grouping by nothing gives. Higher is what
    the semantic grouping aims at; whether it helps precision is what the table ``ablation_grouping`` says.
    """
    import numpy as np

    percentiles = (5, 50, 95)
    columns = (
        Column("dataset", "Data set"),
        Column("grouping", "Grouping"),
        Column("groups", "Groups", digits=0),
        Column("group_size", "Group size", digits=0),
        Column("head", "Head labels", digits=0),
        Column("cohesion", "Cohesion", digits=3),
        *(Column(f"percentile_{p}", f"{p}th percentile", digits=3) for p in percentiles),
    )
    rows = []
    for dataset, grouping, order in sources.orders():
        cohesion = order.cohesion
        row = {
            "dataset": dataset,
            "grouping": grouping,
            "groups": order.n_groups,
            "group_size": order.group_size,
            "head": order.head,
            **mean_std("cohesion", cohesion.tolist()),
        }
        if cohesion.size:
            row |= {f"percentile_{p}": float(np.percentile(cohesion, p)) for p in percentiles}
        rows.append(row)
    notes = (
        "Cohesion of a group: mean cosine of its labels' embeddings to the group's mean. "
        "Mean ± standard deviation over the groups of the tail.",
    )
    return Table.of(columns, rows, notes, section="dataset")


@table(
    "confusions",
    "Confusions within semantic groups",
    inputs=lambda grid: Inputs(
        runs=tuple(claimed_runs(grid, "grouping")),
        corpora=grid.ablation_datasets,
        orders=order_paths(grid, grid.ablation_datasets, ["semantic"]),
    ),
    applies=lambda grid: "grouping" in grid.ablations,
)
def confusions_table(sources: Sources) -> Table:
    """How often a label is taken for another one of its semantic group.

    The labels of one group read the same features, so groups of like labels may be the hardest to tell apart.
    Precision of the same runs is in the table ``ablation_grouping``.
    """

    from haste.metrics.confusions import group_confusions, groups_of
    from haste.report.load import seed_interval

    last = CONFUSION_RANKS[-1]
    columns = (
        Column("dataset", "Data set"),
        Column("grouping", "Trained with groups"),
        Column("P@1", "P@1"),
        *(Column(f"confused@{k}", f"Confused, first {k} (%)", digits=2) for k in CONFUSION_RANKS),
        Column("difference", f"Δ first {last} [95%]", digits=2),
        Column("seeds", "Seeds", digits=0),
    )
    chosen = ablation("grouping")
    claimed = claimed_runs(sources.grid, chosen.name)
    rows: list[Row] = []
    for dataset, _, order in sources.orders():
        truth = sources.documents[dataset].truth.positives
        groups = groups_of(order, truth.shape[1])
        variants = sources.ablation(chosen.name, dataset, claimed)
        confused = {
            (run.root, k): group_confusions(run.predictions(), truth, groups, k)
            for runs in variants.values()
            for run in runs
            for k in CONFUSION_RANKS
        }
        preset = variants.get(DEFAULT_VARIANT)
        for variant, runs in variants.items():
            row: Row = {"dataset": dataset, "grouping": chosen.variant_title(variant)}
            row |= _statistics(runs, ["P@1"])
            row |= {"seeds": len(runs)} if runs else {"difference": OPEN}
            for k in CONFUSION_RANKS:
                row |= mean_std(f"confused@{k}", [confused[run.root, k].mean() for run in runs])
            if runs and preset and runs is not preset:
                values = seed_interval(runs, preset, lambda run: confused[run.root, last])  # noqa: B023, called in here
                row |= interval("difference", *values)
            rows.append(row)
    notes = (
        "Confused: of the first predictions, the share that is wrong and lies in the semantic group (of the "
        "preset, first seed) of a label that would be right, whatever groups a run was trained with. Labels "
        "of one group read the same features; if that makes them hard to tell apart, runs trained with "
        "semantic groups confuse more of them. Head labels have no group.",
        "Δ: to the preset, in points, with the paired bootstrap interval (95%) over seeds and test documents. Mean ± "
        "sample standard deviation over seeds.",
        run_note(sources.runs),
    )
    return Table.of(columns, rows, notes, section="dataset")


@table("runs", "All runs", inputs=lambda grid: Inputs(runs=tuple(grid.runs())), long=True)
def runs_table(sources: Sources) -> Table:
    """Every run behind the tables and figures of this grid.

    Metrics, epochs, training loss, late gain on validation, times, memory, and the device and versions the run
    was made with. The csv beside this table stands for the runs where their folders are not kept.
    """
    notes = (
        "One row a run. Metrics in percent on the test split; the csv has every number unrounded, "
        "memory in bytes and times in seconds.",
        "Validation: after the last epoch, before the bias of a tail is tuned; for choosing between methods, for "
        "which the test split must not be read.",
        CONVERGED_NOTE,
    )
    cells = [run_cells(run) for run in sources.runs]
    return Table.of_cells(cells, notes, section="dataset" if cells else None)


def converged(runs: Sequence[Run]) -> str | None:
    """yes or no, of the mean of the seeds; None where nothing was trained by epochs."""
    gain = mean_late_gain(runs)
    if gain is None:
        return None
    return "yes" if has_converged(gain) else "no"


def _main_row(sources: Sources, dataset: str, method: Method, columns: Sequence[Column]) -> Row:
    runs = sources.of(dataset, method.name)
    # dataset, method, runs, what is measured, converged
    row = _statistics(runs, (column.key for column in columns[3:-1]))
    row |= {"dataset": dataset, "method": method.title, "converged": converged(runs)}
    row["runs"] = _runs_cell(method, runs)
    if method.published_as:
        for column in columns:
            metric = PUBLISHED_NAMES.get(column.key, column.key)
            paper, name = method.published_as
            if number := sources.published.find(paper, dataset, name, metric):
                row[f"{column.key} paper"] = number.cell()
    return row


def _runs_cell(method: Method, runs: Sequence[Run]) -> str:
    if method.kind == "published":
        return "not trained here"
    if not runs:
        return OPEN
    if method.kind == "linear":
        return "1 run"
    return f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"


def _with_paper(columns: Iterable[Column], rows: Sequence[Row]) -> list[Column]:
    """The columns, each followed by the paper's where any row has a published number."""
    shown = []
    for column in columns:
        shown.append(column)
        key, title = f"{column.key} paper", f"{column.title} (paper)"
        if any(row.get(key) is not None for row in rows):
            shown.append(Column(key, title, digits=column.digits, scale=column.scale))
    return shown


def _statistics(runs: Sequence[Run], names: Iterable[str]) -> Row:
    """Mean and deviation over runs of some columns of the run table."""
    rows = [run_row(run) for run in runs]
    return {k: v for name in names for k, v in mean_std(name, (r[name] for r in rows)).items()}


MEMORY_NOTES = {
    False: "Peak memory on a CPU: the most that the process held while training, interpreter and libraries "
    "included.",
    True: "Peak memory on a GPU: the most that was allocated while training.",
}
"""by whether runs were trained on a GPU"""
