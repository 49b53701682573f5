"""The trained runs of a grid in the order of what they decide, so that a stop leaves the most decided."""

from __future__ import annotations

from collections.abc import Iterable

from haste.grid import GridConfig, RunKey
from haste.presets import method
from haste.report.claims import claimed_runs, claims

FIRST = ("dense", "haste", "fixed-fan-in")
"""the main table's methods without which nothing can be said"""
PRIOR_SPARSE = ("spartex", "block-sparse")
"""what claims C4a and C5 compare HASTE with"""


def run_order(grid: GridConfig) -> list[RunKey]:
    """All trained runs of a grid, each once, the most decisive first.

    Dense, HASTE and fixed fan-in; the ablations that claims are about; the prior sparse methods; the other
    methods; what remains of the ablations; the trials. Within a step all runs of one seed come before
    those of the next.
    """
    others = [name for name in grid.methods if name not in (*FIRST, *PRIOR_SPARSE)]
    steps = [
        _main(grid, FIRST),
        *(claimed_runs(grid, claim.ablation) for claim in claims() if claim.ablation),
        _main(grid, PRIOR_SPARSE),
        _main(grid, others),
        *(grid.ablation_runs(name) for name in grid.ablations),
        grid.trial_runs(),
    ]
    seeds = list(dict.fromkeys((*grid.seeds, *grid.ablation_seeds)))
    ordered: dict[RunKey, None] = {}
    for keys in steps:
        trained = [key for key in keys if method(key.method).kind == "trained"]
        # sorting is stable: within a seed the order stays that of the step; trials may have other seeds
        trained.sort(key=lambda key: seeds.index(key.seed) if key.seed in seeds else len(seeds))
        ordered.update(dict.fromkeys(trained))
    return list(ordered)


def _main(grid: GridConfig, names: Iterable[str]) -> list[RunKey]:
    """The main table's runs of some methods: data sets of the grid, within each these methods."""
    runs = list(grid.main_runs())
    return [
        key
        for dataset in grid.datasets
        for name in names
        for key in runs
        if (key.dataset, key.method) == (dataset, name)
    ]
