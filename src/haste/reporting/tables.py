"""The tables of a grid: each function turns loaded sources into a `Table`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from haste.data.corpus import RARE, load_corpus
from haste.paths import SPLITS
from haste.presets import Method, ablation
from haste.reporting.benchmarks import KernelTimes
from haste.reporting.claims import claims_table
from haste.reporting.confusions import confusions_table
from haste.reporting.kernels import targets_table, times_table
from haste.reporting.needs import ABLATION_PREFIX, BENCHMARKS, CONFUSIONS, TUNING
from haste.reporting.published import PEAK_MEMORY, SECONDS_AN_EPOCH
from haste.reporting.run_table import runs_table
from haste.reporting.runs import CONVERGED_NOTE, Run, run_frame, run_note, time_notes
from haste.reporting.scale import TITLE as SCALE_TITLE
from haste.reporting.scale import ScaleResults, scale_table
from haste.reporting.sources import Sources, cohesion_orders
from haste.reporting.table import GIB, MIB, MILLION, OPEN, Cell, Column, Stat, Table
from haste.reporting.tuning import tuning_table

ACCURACY = ("P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5", "nDCG@5", "R@100")
WITHOUT_MIRRORED = tuple(f"P@{k} without mirrored" for k in (1, 3, 5))
PUBLISHED_NAMES = {"peak_train_bytes": PEAK_MEMORY, "epoch_seconds": SECONDS_AN_EPOCH}
MEAN_NOTE = "Metrics in percent on the test split: mean ± sample standard deviation over seeds."


def build_table(name: str, sources: Sources) -> Table:
    """Table `name` (one of `needs.table_names`) from the sources that `needs.table_inputs` names."""
    if name.startswith(ABLATION_PREFIX):
        return ablation_table(name.removeprefix(ABLATION_PREFIX), sources)
    if name in BENCHMARKS:
        return benchmark_table(name, sources)
    builders = {
        "main": main_table,
        "claims": claims_table,
        "datasets": datasets_table,
        "grouping_cohesion": cohesion_table,
        CONFUSIONS: confusions_table,
        "runs": runs_table,
        TUNING: tuning_table,
    }
    return builders[name](sources)


def main_table(sources: Sources) -> Table:
    """Every method of the grid: accuracy, memory, time, training loss, and the paper's numbers."""
    columns = [
        Column("dataset", "Data set"),
        Column("method", "Method"),
        Column("runs", "Runs"),
        *(Column(name, name, best=True) for name in ACCURACY),
        *(Column(n, n.replace("without", "w/o"), best=True) for n in WITHOUT_MIRRORED),
        Column("peak_train_bytes", "Peak memory (GiB)", digits=2, scale=GIB),
        Column("state_bytes", "State (MiB)", scale=MIB),
        Column("epoch_seconds", "Epoch (s)"),
        Column("parameters", "Parameters (M)", digits=2, scale=MILLION),
        Column("loss", "Training loss", digits=2),
        Column("slope", "Slope (%/epoch)", digits=2, scale=0.01, signed=True),
        Column("converged", "Converged"),
    ]
    rows = [
        _main_row(sources, dataset, method, columns)
        for dataset in sources.grid.datasets
        for method in sources.methods()
    ]
    columns = _with_paper(columns, rows)
    if not any(row.get(name) for row in rows for name in WITHOUT_MIRRORED):
        columns = [c for c in columns if c.key not in WITHOUT_MIRRORED]
    notes = [
        MEAN_NOTE + " Bold: the best of the column.",
        run_note(sources.runs),
        *time_notes(sources.runs),
        *_memory_notes(sources.runs),
        CONVERGED_NOTE,
    ]
    if any(row.get(name) for row in rows for name in WITHOUT_MIRRORED):
        notes.append(
            "w/o mirrored: test pairs (i, j) whose mirror (j, i) is a training pair are taken out of "
            "truth and predictions."
        )
    if any(column.key.endswith(" paper") for column in columns):
        notes.append(
            "(paper): published on the same data set, on other hardware and with BERT-size encoders."
        )
    return Table("All methods", tuple(columns), tuple(rows), tuple(notes), section="dataset")


def ablation_table(name: str, sources: Sources) -> Table:
    """The preset and each variant, with the difference in P@1 to the preset."""
    chosen = ablation(name)
    columns = (
        Column("dataset", "Data set"),
        Column("variant", chosen.title),
        *(Column(n, n, best=True) for n in ("P@1", "P@3", "P@5", "PSP@1", "PSP@5", "R@100")),
        Column("difference", "Δ P@1 [95%]", digits=2),
        Column("epoch_seconds", "Epoch (s)"),
        Column("layer_bytes", "Layer (MiB)", scale=MIB),
        Column("seeds", "Seeds", digits=0),
        Column("converged", "Converged"),
    )
    titles = {chosen.variant_name(value): value for value in chosen.variants}
    rows: list[dict[str, Cell]] = []
    for dataset in sources.grid.ablation_datasets:
        variants = sources.ablation(name, dataset)
        preset = next(iter(variants.values()))
        for variant, runs in variants.items():
            row = _stats(runs, [column.key for column in columns])
            row |= {"dataset": dataset, "seeds": len(runs), "converged": converged(runs)}
            row["variant"] = titles.get(variant, f"{chosen.default} (preset)")
            if not runs:
                row |= {"seeds": None, "difference": OPEN}
            elif runs is not preset and preset:
                row["difference"] = sources.documents[dataset].difference(runs, preset, "P@1")
            rows.append(row)
    notes = [
        f"Variants of {chosen.method}; all else is its preset. {MEAN_NOTE}",
        "Δ P@1: to the preset, same seeds, in points, with the paired bootstrap interval (95%) over "
        "test documents" + _one_seed_note(sources.grid.ablation_seeds),
        run_note(sources.runs),
        *time_notes(sources.runs),
        CONVERGED_NOTE,
    ]
    return Table(
        f"Ablation: {chosen.title.lower()}", columns, tuple(rows), tuple(notes), section="dataset"
    )


def datasets_table(sources: Sources) -> Table:
    """Statistics of the data sets, computed from the corpora."""
    columns = (
        Column("dataset", "Data set"),
        Column("train", "Train", digits=0),
        Column("validation", "Validation", digits=0),
        Column("test", "Test", digits=0),
        Column("labels", "Labels", digits=0),
        Column("extra_labels", "Unseen labels", digits=0),
        Column("labels_a_document", "Labels/document", digits=2),
        Column("documents_a_label", "Documents/label", digits=2),
        Column("rare_labels_percent", f"Labels ≤ {RARE} documents (%)"),
        Column("seen_positives_percent", "Test positives seen (%)"),
        Column("mirrored_percent", "Mirrored (%)"),
        Column("words_a_document", "Words/document"),
        Column("propensity", "Propensity A / B"),
        Column("licence", "Licence"),
    )
    rows = []
    for dataset in sources.grid.datasets:
        info = load_corpus(sources.grid.layout.corpus(dataset)).info
        counted = info.statistics
        rows.append(
            {
                "dataset": dataset,
                **{split: info.documents[split] for split in SPLITS},
                "labels": info.n_labels,
                "extra_labels": info.n_extra,
                "labels_a_document": counted.labels_per_document,
                "documents_a_label": counted.points_per_label,
                "rare_labels_percent": 100.0 * counted.rare_labels,
                "seen_positives_percent": 100.0 * counted.seen["test"],
                "mirrored_percent": 100.0 * counted.mirrored["test"],
                "words_a_document": counted.words_per_document,
                "propensity": f"{info.propensity_a:g} / {info.propensity_b:g}",
                "licence": info.licence,
            }
        )
    notes = (
        "Counted from the data. Labels are those with a training document; labels a document, documents "
        "a label and words are of the training split.",
        "Unseen labels occur only in validation or test: they stay in the truth, nothing can predict "
        "them, and the share of test positives seen says how much that costs.",
        "Mirrored: share of test pairs (i, j) whose mirror (j, i) is a training pair.",
    )
    return Table("Data sets", columns, tuple(rows), notes)


def cohesion_table(sources: Sources) -> Table:
    """Mean cosine of labels to their group's mean, by grouping."""
    columns = (
        Column("dataset", "Data set"),
        Column("grouping", "Grouping"),
        Column("groups", "Groups", digits=0),
        Column("group_size", "Group size", digits=0),
        Column("head", "Head labels", digits=0),
        Column("cohesion", "Cohesion", digits=3),
        *(Column(f"percentile_{p}", f"{p}th percentile", digits=3) for p in (5, 50, 95)),
    )
    rows = []
    for dataset, grouping, order in cohesion_orders(sources):
        spread = order.cohesion if order.cohesion.size else None
        rows.append(
            {
                "dataset": dataset,
                "grouping": grouping,
                "groups": order.n_groups,
                "group_size": order.group_size,
                "head": order.head,
                "cohesion": Stat.of(order.cohesion.tolist()),
                **{
                    f"percentile_{p}": None if spread is None else float(np.percentile(spread, p))
                    for p in (5, 50, 95)
                },
            }
        )
    notes = (
        "Cohesion of a group: mean cosine of its labels' embeddings to the group's mean. "
        "Mean ± standard deviation over the groups of the tail.",
    )
    return Table("Cohesion of the label groups", columns, tuple(rows), notes, section="dataset")


def benchmark_table(name: str, sources: Sources) -> Table:
    """The committed benchmark files of all devices, or a row that says what is missing."""
    files = sources.inputs.benchmarks
    if not files:
        return _not_measured(name, sources)
    if name in ("kernels", "kernel_times"):
        devices = [KernelTimes.load(path) for path in files]
        return targets_table(devices) if name == "kernels" else times_table(devices)
    return scale_table([ScaleResults.load(path) for path in files], sources.published)


def _not_measured(name: str, sources: Sources) -> Table:
    titles = {"kernels": "Kernels: targets", "kernel_times": "Kernel times", "scale": SCALE_TITLE}
    benchmark = BENCHMARKS[name]
    columns = (Column("device", "Device"), Column("result", "Result"))
    rows = ({"device": "none", "result": "needs CUDA"},)
    notes = (
        f"No results are committed. On a machine with a GPU, `haste bench {benchmark}` writes "
        f"{sources.grid.layout.benchmarks}/<device>/{benchmark}.csv, from which this table is made.",
    )
    return Table(titles[name], columns, rows, notes)


def converged(runs: Sequence[Run]) -> str | None:
    """yes, no, or how many of the seeds; None where nothing was trained by epochs."""
    states = [run.converged for run in runs if run.converged is not None]
    if not states:
        return None
    if all(states) or not any(states):
        return "yes" if all(states) else "no"
    return f"{sum(states)} of {len(states)}"


def _main_row(
    sources: Sources, dataset: str, method: Method, columns: Sequence[Column]
) -> dict[str, Cell]:
    runs = sources.of(dataset, method.name)
    row = _stats(runs, [column.key for column in columns])
    row |= {"dataset": dataset, "method": method.title, "converged": converged(runs)}
    row["runs"] = _runs_cell(method, runs, sources.inputs.partial)
    if method.published_as:
        paper, name = method.published_as
        for column in columns:
            found = sources.published.find(
                paper, dataset, name, PUBLISHED_NAMES.get(column.key, column.key)
            )
            if found is not None:
                row[f"{column.key} paper"] = found.text if found.value is None else found.value
    return row


def _runs_cell(method: Method, runs: Sequence[Run], partial: bool) -> str:
    if method.kind == "published":
        return "not trained here"
    if not runs:
        return OPEN if partial else "no run given"
    if method.kind == "linear":
        return "1 run"
    return f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"


def _with_paper(columns: Sequence[Column], rows: Sequence[dict[str, Cell]]) -> list[Column]:
    """The columns, each followed by the paper's where any row has a published number."""
    found = []
    for column in columns:
        found.append(column)
        key = f"{column.key} paper"
        if any(row.get(key) is not None for row in rows):
            found.append(
                Column(key, f"{column.title} (paper)", digits=column.digits, scale=column.scale)
            )
    return found


def _stats(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, Cell]:
    """Mean and deviation over runs of the columns of the run table that are among `keys`."""
    if not runs:
        return {}
    frame = run_frame(runs)
    words = {"dataset", "method", "variant", "seed", "device", "converged", "backend"}
    return {key: Stat.of(frame[key].tolist()) for key in keys if key in frame and key not in words}


def _memory_notes(runs: Sequence[Run]) -> list[str]:
    """What memory means on the devices of the runs."""
    words = {
        True: "Peak memory on a GPU: the most that was allocated while training.",
        False: "Peak memory on a CPU: the most that the process held while training, interpreter and "
        "libraries included.",
    }
    state = "State: parameters, optimiser state and index sets, counted exactly."
    return [words[each] for each in sorted({run.on_gpu for run in runs})] + [state]


def _one_seed_note(seeds: Sequence[int]) -> str:
    return "; one seed, so the spread between seeds is not in it." if len(seeds) == 1 else "."
