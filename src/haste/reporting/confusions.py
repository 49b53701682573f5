"""The table of confusions within semantic groups: what would explain that such groups do not help."""

from __future__ import annotations

import numpy as np

from haste.data.corpus import load_corpus
from haste.grid import DEFAULT_VARIANT
from haste.labels.order import LabelOrder
from haste.metrics.bootstrap import paired_bootstrap
from haste.metrics.confusions import group_confusions, groups_of
from haste.presets import ablation
from haste.reporting.needs import GROUPING, claimed_runs
from haste.reporting.runs import run_note
from haste.reporting.sources import Sources
from haste.reporting.table import OPEN, Cell, Column, Interval, Stat, Table

FIRST = (1, 5)
"""predictions that are looked at"""


def confusions_table(sources: Sources) -> Table:
    """How often runs of each grouping take a label of a semantic group for another one of it."""
    chosen = ablation(GROUPING)
    columns = (
        Column("dataset", "Data set"),
        Column("grouping", "Trained with groups"),
        Column("P@1", "P@1"),
        *(Column(f"confused@{k}", f"Confused, first {k} (%)", digits=2) for k in FIRST),
        Column("difference", f"Δ first {FIRST[-1]} [95%]", digits=2),
        Column("seeds", "Seeds", digits=0),
    )
    titles = {chosen.variant_name(value): value for value in chosen.variants}
    rows: list[dict[str, Cell]] = []
    for dataset, order in zip(sources.grid.ablation_datasets, sources.inputs.orders, strict=True):
        truth = load_corpus(sources.grid.layout.corpus(dataset)).positives("test")
        groups = groups_of(LabelOrder.load(order), truth.shape[1])
        preset: np.ndarray | None = None
        claimed = claimed_runs(sources.grid, GROUPING)
        for variant, runs in sources.ablation(GROUPING, dataset, claimed).items():
            title = titles.get(variant, f"{chosen.default} (preset)")
            if not runs:
                rows.append({"dataset": dataset, "grouping": title, "difference": OPEN})
                continue
            # [seeds, N] for each k
            found = {
                k: np.stack([group_confusions(run.predictions(), truth, groups, k) for run in runs])
                for k in FIRST
            }
            mean = found[FIRST[-1]].mean(0)
            difference: Interval | None = None
            if variant == DEFAULT_VARIANT:
                preset = mean
            elif preset is not None:
                difference = Interval(*paired_bootstrap(mean, preset, seed=0))
            rows.append(
                {
                    "dataset": dataset,
                    "grouping": title,
                    "P@1": Stat.of([run.metrics["P@1"] for run in runs]),
                    **{f"confused@{k}": Stat.of(found[k].mean(1).tolist()) for k in FIRST},
                    "difference": difference,
                    "seeds": len(runs),
                }
            )
    notes = (
        "Confused: of the first predictions, the share that is wrong and lies in the semantic group (of the "
        "preset, first seed) of a label that would be right, whatever groups a run was trained with. Labels "
        "of one group read the same features; if that makes them hard to tell apart, runs trained with "
        "semantic groups confuse more of them. Head labels have no group.",
        "Δ: to the preset, in points, with the paired bootstrap interval (95%) over test documents. Mean ± "
        "sample standard deviation over seeds.",
        run_note(sources.runs),
    )
    return Table(
        "Confusions within semantic groups", columns, tuple(rows), notes, section="dataset"
    )
