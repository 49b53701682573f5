"""Everything one table or figure is made from, loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from haste.data.corpus import load_corpus
from haste.errors import DataError
from haste.files import read_yaml
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
from haste.labels.frequency import label_frequencies
from haste.labels.order import LabelOrder
from haste.labels.spec import OrderSpec
from haste.metrics.bootstrap import paired_bootstrap
from haste.metrics.filters import remove_predictions
from haste.metrics.metrics import per_document
from haste.metrics.propensity import inverse_propensity
from haste.paths import CorpusDir
from haste.presets import Method, method, methods
from haste.reporting.needs import Inputs
from haste.reporting.published import Published
from haste.reporting.runs import Run, load_runs
from haste.reporting.shorter import ShorterRuns
from haste.reporting.table import Interval
from haste.runs import differences, is_finished, run_dir


class Documents:
    """What each test document of a data set contributes to a metric, and differences of methods."""

    def __init__(self, directory: CorpusDir) -> None:
        self.directory = directory
        self._values: dict[tuple[Path, str], np.ndarray] = {}

    @cached_property
    def truth(self) -> sp.csr_matrix:
        """CSR [N, L + E] of the test split."""
        return load_corpus(self.directory).positives("test")

    @cached_property
    def weights(self) -> np.ndarray:
        """float64 [L + E]: inverse propensities, counted over the training split."""
        info = load_corpus(self.directory).info
        frequencies = label_frequencies(self.directory)
        documents = info.documents["train"]
        return inverse_propensity(frequencies, documents, info.propensity_a, info.propensity_b)

    def values(self, run: Run, metric: str) -> np.ndarray:
        """float64 [N], percent: their mean is the run's metric; raises DataError where it is not."""
        key = (run.root, metric)
        if key not in self._values:
            weights = self.weights if metric.startswith("PS") else None
            values = per_document(metric, self._evaluated(run), self.truth, weights)
            if abs(values.mean() - run.metrics[metric]) > 1e-3:
                raise DataError(
                    f"{run.root}: predictions.npz gives {metric} {values.mean():.4f} on "
                    f"{self.directory.root}, but metrics.json says {run.metrics[metric]:.4f}; one of them "
                    f"is stale. Evaluate it again: haste evaluate {run.root}"
                )
            self._values[key] = values
        return self._values[key]

    def _evaluated(self, run: Run) -> np.ndarray:
        """int32 [N, k]: the run's predictions as they were measured."""
        corpus = load_corpus(self.directory)
        ids = run.predictions()
        return remove_predictions(ids, corpus.mirrored("test")) if corpus.info.filtered else ids

    def mean(self, runs: Sequence[Run], metric: str) -> np.ndarray:
        """float64 [N]: each document's values averaged over the runs, which are seeds of one method."""
        return np.mean([self.values(run, metric) for run in runs], axis=0)

    def difference(self, a: Sequence[Run], b: Sequence[Run], metric: str) -> Interval:
        """Mean of a - b with its paired bootstrap interval (95%) over test documents, in points."""
        return Interval(*paired_bootstrap(self.mean(a, metric), self.mean(b, metric), seed=0))


@dataclass(frozen=True)
class Sources:
    """A grid with the runs, order files and published numbers that a table or figure reads."""

    grid: GridConfig
    inputs: Inputs
    runs: tuple[Run, ...]
    published: Published

    @classmethod
    def load(
        cls,
        grid: GridConfig,
        inputs: Inputs,
        published: Published,
        run_dirs: Iterable[Path] | None = None,
    ) -> Sources:
        """Load the runs in `run_dirs`, or else those that `inputs` names; where these are `partial`,
        the ones that have finished with the grid's configuration.

        Raises DataError for another run that is not finished, or was measured on another split.
        """
        if run_dirs is None:
            keys = [key for key in inputs.runs if not inputs.partial or is_finished(grid, key)]
            for key in keys:
                _check_configuration(grid, key)
            run_dirs = [run_dir(grid, key).root for key in keys]
        runs = tuple(load_runs(run_dirs))
        for run in runs:
            if run.split != inputs.split:
                raise DataError(
                    f"{run.root}: measured on the {run.split} split (training.evaluate), and this is "
                    f"about {inputs.split}; leave that folder out."
                )
        return cls(grid, inputs, runs, published)

    @cached_property
    def documents(self) -> dict[str, Documents]:
        """Per-document values by data set."""
        return {each: Documents(self.grid.layout.corpus(each)) for each in self.inputs.corpora}

    @cached_property
    def shorter(self) -> ShorterRuns | None:
        """What came out with fewer epochs, where the grid names such runs."""
        return ShorterRuns.load(self.inputs.shorter) if self.inputs.shorter else None

    def methods(self) -> list[Method]:
        """The grid's methods in the order of the preset table."""
        return [row for name, row in methods().items() if name in self.grid.methods]

    def of(self, dataset: str, method: str, variant: str = DEFAULT_VARIANT) -> list[Run]:
        """The runs of one row: its seeds, ascending; empty where there are none."""
        found = [
            run
            for run in self.runs
            if (run.key.dataset, run.key.method, run.key.variant) == (dataset, method, variant)
        ]
        return sorted(found, key=lambda run: run.key.seed)

    def ablation(
        self, name: str, dataset: str, keys: Iterable[RunKey] | None = None
    ) -> dict[str, list[Run]]:
        """Variant in run paths -> its runs: the preset first, all with the ablation's seeds.

        `keys`: those of its runs that are meant, all unless given. Raises DataError when one of them was
        not given; where the runs are `partial`, a variant that lacks a seed is empty.
        """
        given = {run.key: run for run in self.runs}
        wanted: dict[str, list[RunKey]] = {}
        for key in self.grid.ablation_runs(name) if keys is None else keys:
            if key.dataset == dataset:
                wanted.setdefault(key.variant, []).append(key)
        found: dict[str, list[Run]] = {}
        for variant, seeds in wanted.items():
            lacking = next((key for key in seeds if key not in given), None)
            if lacking is not None and not self.inputs.partial:
                raise DataError(
                    f"ablation {name}: the run {lacking.method}, {variant}, seed {lacking.seed} on "
                    f"{dataset} is not among the folders given; add it, or give none for all of the grid."
                )
            found[variant] = [] if lacking else [given[key] for key in seeds]
        return found


def _check_configuration(grid: GridConfig, key: RunKey) -> None:
    """Refuse (DataError) a run that lies there with other settings than the grid's."""
    path = run_dir(grid, key).config
    if method(key.method).kind != "trained" or not path.is_file():
        return
    if differ := differences(grid.resolve(key), read_yaml(path)):
        raise DataError(
            f"{path}: is not what the grid {grid.name} says now: {'; '.join(differ[:3])}. Make it again "
            "(haste configure), and the run (haste train)."
        )


def cohesion_orders(sources: Sources) -> list[tuple[str, str, LabelOrder]]:
    """(data set, grouping, order) of each order file, in the order of the inputs."""
    found = []
    for path in sources.inputs.orders:
        grouping = OrderSpec.parse(path.parent.name).grouping
        # data/<dataset>/labels/<order>/order.npz
        found.append((path.parents[2].name, grouping, LabelOrder.load(path)))
    return found
