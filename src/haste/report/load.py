"""Everything one table or figure is made from, loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from haste.errors import DataError
from haste.files import read_yaml
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
from haste.labels.order import LabelOrder
from haste.labels.spec import OrderSpec
from haste.metrics.bootstrap import Interval, paired_bootstrap
from haste.metrics.deciles import DECILES, decile_part
from haste.metrics.filters import remove_predictions
from haste.metrics.metrics import per_document
from haste.metrics.truth import Truth, load_truth
from haste.paths import CorpusDir
from haste.presets import Method, methods
from haste.report.benchmarks import Results
from haste.report.published import Published
from haste.report.registry import Entry, Inputs
from haste.report.render import Column, Table
from haste.report.runs import Run, load_run
from haste.report.style import empty_figure
from haste.runs import differences, is_finished, is_trained, run_dir

RARE_FROM = 7
RARE = f"P@5 of deciles {RARE_FROM} to {DECILES}"
"""what the labels in the rarest deciles, tenths of the training positives, add to P@5"""


class Documents:
    """What each test document of a data set contributes to a metric, and differences of methods."""

    def __init__(self, directory: CorpusDir) -> None:
        self.directory = directory
        self._values: dict[tuple[Path, str], np.ndarray] = {}
        self._lengths: dict[Path, int] = {}

    @cached_property
    def truth(self) -> Truth:
        """Of the test split."""
        return load_truth(self.directory, "test")

    def values(self, run: Run, metric: str) -> np.ndarray:
        """float64 [N], percent: their mean is the run's metric; raises DataError where it is not."""
        key = (run.root, metric)
        if key not in self._values:
            truth, ids = self.truth, run.predictions()
            if truth.filtered:
                ids = remove_predictions(ids, truth.reciprocal)
            if metric == RARE:
                values = decile_part(ids, truth.positives, truth.train_frequency, 5, RARE_FROM)
                stated: float = sum(
                    part
                    for row in run.deciles
                    if row["decile"] in range(RARE_FROM, DECILES + 1)
                    and (part := row["P@5"]) is not None
                )
            else:
                values = per_document(metric, ids, truth.positives, truth.inverse_propensity)
                stated = run.metrics[metric]
            if abs(values.mean() - stated) > 1e-3:
                raise DataError(
                    f"{run.root}: predictions.npz gives {metric} {values.mean():.4f} on "
                    f"{self.directory.root}, but metrics.json says {stated:.4f}; one of them "
                    f"is stale. Evaluate it again: haste evaluate {run.root}"
                )
            self._values[key] = values
        return self._values[key]

    def difference(self, a: Sequence[Run], b: Sequence[Run], metric: str) -> Interval:
        """Mean of a - b with its interval, see `seed_interval`, in points; over seeds alone where
        `by_document` is false."""
        if self.by_document([*a, *b], metric):
            return seed_interval(a, b, lambda run: self.values(run, metric))
        return seed_interval(a, b, lambda run: np.array([run.metrics[metric]]))

    def by_document(self, runs: Iterable[Run], metric: str) -> bool:
        """Whether the runs' predictions are long enough for the metric: results that were carried from
        another machine may have fewer."""
        rank = int(metric.split("@")[1].split()[0])
        return all(self._length(run) >= rank for run in runs)

    def _length(self, run: Run) -> int:
        if run.root not in self._lengths:
            self._lengths[run.root] = run.predictions().shape[1]
        return self._lengths[run.root]


def seed_interval(
    a: Sequence[Run], b: Sequence[Run], values: Callable[[Run], np.ndarray]
) -> Interval:
    """Mean of a - b with its paired bootstrap interval (95%) over seeds and test documents.

    `a`, `b`: the seeds of one row each; `values`: of a run, float64 [N], one a document.
    """
    seeds = [[run.key.seed for run in side] for side in (a, b)]
    of_a, of_b = (np.stack([values(run) for run in side]) for side in (a, b))
    return paired_bootstrap(of_a, of_b, paired_seeds=seeds[0] == seeds[1])


@dataclass(frozen=True)
class Sources:
    """A grid with the runs, order files and published numbers that a table or figure reads."""

    grid: GridConfig
    inputs: Inputs
    runs: tuple[Run, ...]
    published: Published

    @classmethod
    def load(cls, grid: GridConfig, inputs: Inputs, published: Published) -> Sources:
        """Load the runs that `inputs` names; where these are `partial`, those of them that have finished with
        the grid's configuration.

        Raises DataError for another run that is not finished, or is not what the grid says.
        """
        keys = [key for key in inputs.runs if not inputs.partial or is_finished(grid, key)]
        if missing := [key.name for key in keys if not run_dir(grid, key).metrics.is_file()]:
            raise DataError(
                f"{grid.layout.results}: {len(missing)} of the {len(keys)} runs that this reads are not there "
                f"({missing[0]}, ...). Snakemake makes what a table or figure lacks; for one of the runs that "
                "are there, lay workflow/overlays/finished.yaml over the grid."
            )
        for key in keys:
            _check_configuration(grid, key)
        return cls(
            grid, inputs, tuple(load_run(run_dir(grid, key).root) for key in keys), published
        )

    @cached_property
    def documents(self) -> dict[str, Documents]:
        """Per-document values by data set."""
        return {name: Documents(self.grid.layout.corpus(name)) for name in self.inputs.corpora}

    @cached_property
    def benchmarks(self) -> list[Results]:
        """The committed results of the benchmark that is shown, by device."""
        return [Results.load(path) for path in self.inputs.benchmarks]

    def methods(self) -> list[Method]:
        """The grid's methods in the order of the preset table."""
        return [row for name, row in methods().items() if name in self.grid.methods]

    def of(self, dataset: str, method: str, variant: str = DEFAULT_VARIANT) -> list[Run]:
        """The runs of one row: its seeds, ascending; empty where there are none."""
        row = (dataset, method, variant)
        runs = [r for r in self.runs if (r.key.dataset, r.key.method, r.key.variant) == row]
        return sorted(runs, key=lambda run: run.key.seed)

    def ablation(
        self, name: str, dataset: str, keys: Iterable[RunKey] | None = None
    ) -> dict[str, list[Run]]:
        """Variant in run paths -> its runs: the preset first, all with the ablation's seeds.

        `keys`: those of its runs that are meant, all unless given. A variant that lacks a seed is empty.
        """
        run_of = {run.key: run for run in self.runs}
        wanted: dict[str, list[RunKey]] = {}
        for key in self.grid.ablation_runs(name) if keys is None else keys:
            if key.dataset == dataset:
                wanted.setdefault(key.variant, []).append(key)
        return {
            variant: [run_of[key] for key in seeds] if run_of.keys() >= set(seeds) else []
            for variant, seeds in wanted.items()
        }

    def orders(self) -> list[tuple[str, str, LabelOrder]]:
        """(data set, grouping, order) of each order file, in the order of the inputs."""
        # data/<dataset>/labels/<order>/order.npz
        return [
            (
                path.parents[2].name,
                OrderSpec.parse(path.parent.name).grouping,
                LabelOrder.load(path),
            )
            for path in self.inputs.orders
        ]


def build(entry: Entry, sources: Sources) -> Any:
    """The `render.Table`, or the figure with the data frame that it shows; where no benchmark is committed
    that shows one, it says so.

    Raises DataError for a figure of runs none of which has finished.
    """
    inputs, name = sources.inputs, entry.benchmark
    if entry.kind == "figure" and inputs.runs and not sources.runs:
        raise DataError(f"figure {entry.name}: no run of the grid that it shows has finished.")
    if name is None or inputs.benchmarks:
        return entry.make(sources)
    row = {"device": "none", "result": "needs CUDA"}
    if entry.kind == "figure":
        words = f"needs CUDA: no {name} benchmark is committed\n(haste bench {name})"
        return empty_figure(words, row)
    note = (
        f"No results are committed. On a machine with a GPU, `haste bench {name}` writes "
        f"{sources.grid.layout.benchmarks}/<device>/{name}.csv, from which this table is made."
    )
    return Table.of((Column("device", "Device"), Column("result", "Result")), [row], [note])


def _check_configuration(grid: GridConfig, key: RunKey) -> None:
    """Refuse (DataError) a run that is there with other settings than the grid's."""
    path = run_dir(grid, key).config
    if not is_trained(key) or not path.is_file():
        return
    if differ := differences(grid.resolve(key), read_yaml(path)):
        raise DataError(
            f"{path}: is not what the grid {grid.name} says now: {'; '.join(differ[:3])}. Make it again "
            "(haste configure), and the run (haste train)."
        )
