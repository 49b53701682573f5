"""The trained runs of a grid in the order of what they decide, so that a stop leaves the most decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from haste import patterns
from haste.grid import TRIAL_PREFIX, GridConfig, RunKey
from haste.presets import method
from haste.report.claims import claimed_runs, claims

FIRST = ("dense", "haste", "fixed-fan-in")
"""the main table's methods without which nothing can be said"""
RIVALS = ("spartex", "block-sparse")
"""the prior sparse methods that C4 and C5 compare HASTE with"""


@dataclass(frozen=True)
class Task:
    """A run and what it decides."""

    key: RunKey
    why: str

    @property
    def name(self) -> str:
        """As --only and logs know it."""
        return self.key.name


def worklist(grid: GridConfig) -> list[Task]:
    """All trained runs of a grid, each once, where it is needed first.

    The steps: dense, HASTE and fixed fan-in; what claims C7 to C9 are about, one after the other; the
    prior sparse methods; the other methods; what remains of the ablations; the trials, which are made
    when they are asked for. Within a step all runs of one seed come before those of the next.
    """
    others = [name for name in grid.methods if name not in (*FIRST, *RIVALS)]
    steps = [
        ("main: dense, HASTE, fixed fan-in", _main(grid, FIRST)),
        *(
            (f"{claim.id}: {claim.ablation}", claimed_runs(grid, claim.ablation))
            for claim in claims()
            if claim.ablation
        ),
        ("C4, C5: Spartex, block sparse", _main(grid, RIVALS)),
        ("main: other methods", _main(grid, others)),
        *((f"ablation: {name}", grid.ablation_runs(name)) for name in grid.ablations),
        ("trials: settings, on the validation split", grid.trial_runs()),
    ]
    found: dict[RunKey, Task] = {}
    for why, keys in steps:
        trained = [key for key in keys if method(key.method).kind == "trained"]
        # sorting is stable: within a seed the order stays that of the step
        for key in sorted(trained, key=lambda key: _rank(grid, key.seed)):
            found.setdefault(key, Task(key, why))
    return list(found.values())


def select(tasks: Sequence[Task], only: Sequence[str]) -> list[Task]:
    """The tasks that one of the patterns `only` names, without a pattern all but the trials.

    A pattern is of dataset/method/variant/seedK, or of one of the four. As in the workflow, trials are
    made only when asked for: by a pattern that says `trial-`. Raises ConfigError for a pattern that no
    task matches.
    """
    return patterns.select(
        tasks, only, "dataset/method/variant/seedK", what="run", counts=_is_asked_for
    )


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


def _rank(grid: GridConfig, seed: int) -> int:
    """Where a seed stands; that of the trials may be none of them."""
    seeds = list(dict.fromkeys((*grid.seeds, *grid.ablation_seeds)))
    return seeds.index(seed) if seed in seeds else len(seeds)


def _is_asked_for(task: Task, pattern: str) -> bool:
    return not task.key.is_trial or TRIAL_PREFIX in pattern
