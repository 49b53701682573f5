"""What each table and figure of a grid reads, so that the workflow and the commands agree.

Neither torch nor pandas is imported here: the Snakefile asks these functions on every start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from haste.config import GROUPINGS
from haste.errors import ConfigError, suggest
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
from haste.labels.spec import OrderSpec
from haste.paths import RunDir
from haste.presets import ablation, method

ABLATION_PREFIX = "ablation_"
TUNING = "tuning"
"""the table of a grid's trials, which are made only when they are asked for"""
CONFUSIONS = "confusions"
"""the table of wrong labels of the group of a right one"""
BENCHMARKS = {"kernels": "kernels", "kernel_times": "kernels", "scale": "scale"}
"""tables filled from committed benchmark files, results/benchmarks/<device>/<name>.csv: their files"""
MACHINE = "machine.json"
"""beside kernels.csv: device, versions, what it reached when copying"""
SCALE_MACHINE = "scale.json"
"""beside scale.csv: device and versions"""
KERNEL_FIGURES = ("kernel_speedup", "kernel_floor")
"""figures drawn from the kernel benchmark"""
SCALE_FIGURES = ("scale_memory",)
"""figures drawn from the scale benchmark"""
GROUPING = "grouping"
CLAIM_VARIANTS = {
    GROUPING: ("frequency", "random"),
    "head_tail": ("off",),
    "group_size": ("32", "64"),
}
"""what claims C7, C8 and C9 are about: variants, by ablation, that they compare with the preset"""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What one table or figure reads."""

    runs: tuple[RunKey, ...] = ()
    """runs that must be complete, see `run_files`"""
    corpora: tuple[str, ...] = ()
    """data sets whose corpus folder is read"""
    orders: tuple[Path, ...] = ()
    """order.npz files"""
    benchmarks: tuple[Path, ...] = ()
    """benchmark files that lie there now; none is needed"""
    beside: tuple[Path, ...] = ()
    """what else lies in their folders and is read with them"""
    shorter: Path | None = None
    """table `runs` of a grid with fewer epochs, where it lies there now"""
    split: str = "test"
    """that the metrics of the runs are of"""
    partial: bool = False
    """whether it is made of those of the runs that are finished. The workflow makes all of them first, but
    for a grid that says `only_finished`"""


def table_names(grid: GridConfig) -> list[str]:
    """The tables of a grid, in the order of the report."""
    ablations = [f"{ABLATION_PREFIX}{name}" for name in grid.ablations]
    confusions = [CONFUSIONS] if GROUPING in grid.ablations else []
    tuning = [TUNING] if grid.tuning else []
    return [
        "main",
        "claims",
        "datasets",
        *tuning,
        *ablations,
        "grouping_cohesion",
        *confusions,
        "runs",
        *BENCHMARKS,
    ]


def figure_names(grid: GridConfig) -> list[str]:
    """The figures of a grid, in the order of the report."""
    bars = ["ablations"] if grid.ablations else []
    return [
        "precision_memory",
        "precision_by_decile",
        *bars,
        "training_curves",
        "label_frequency",
        "cohesion",
        *KERNEL_FIGURES,
        *SCALE_FIGURES,
    ]


def table_inputs(grid: GridConfig, name: str) -> Inputs:
    """What table `name` reads; raises ConfigError for a name that the grid does not have."""
    _check("table", name, table_names(grid))
    inputs = _table_inputs(grid, name)
    return dataclasses.replace(inputs, partial=inputs.partial or grid.only_finished)


def _table_inputs(grid: GridConfig, name: str) -> Inputs:
    if name == "main":
        return Inputs(runs=tuple(grid.main_runs()))
    if name == "runs":
        return Inputs(runs=tuple(grid.runs()))
    if name == TUNING:
        return Inputs(runs=tuple(grid.trial_runs()), split="validation", partial=True)
    if name == "datasets":
        return Inputs(corpora=grid.datasets)
    if name == "grouping_cohesion":
        return Inputs(orders=_order_paths(grid, GROUPINGS))
    if name == CONFUSIONS:
        return Inputs(
            runs=tuple(claimed_runs(grid, GROUPING)),
            corpora=grid.ablation_datasets,
            orders=tuple(order_path(grid, each, "semantic") for each in grid.ablation_datasets),
        )
    if name in BENCHMARKS:
        return _benchmark_inputs(grid, BENCHMARKS[name])
    if name == "claims":
        shorter = Path(grid.shorter) if grid.shorter else None
        ablations = [key for name in CLAIM_VARIANTS for key in claimed_runs(grid, name)]
        return Inputs(
            runs=_unique([*grid.main_runs(), *ablations]),
            corpora=grid.datasets,
            benchmarks=_benchmarks(grid, "kernels"),
            beside=_benchmarks(grid, "scale"),
            shorter=shorter if shorter and shorter.exists() else None,
        )
    chosen = name.removeprefix(ABLATION_PREFIX)
    return Inputs(runs=_ablation_runs(grid, [chosen]), corpora=grid.ablation_datasets)


def figure_inputs(grid: GridConfig, name: str) -> Inputs:
    """What figure `name` reads; raises ConfigError for a name that the grid does not have."""
    _check("figure", name, figure_names(grid))
    return dataclasses.replace(_figure_inputs(grid, name), partial=grid.only_finished)


def _figure_inputs(grid: GridConfig, name: str) -> Inputs:
    if name == "ablations":
        # per-document values need the truth
        return Inputs(runs=_ablation_runs(grid, grid.ablations), corpora=grid.ablation_datasets)
    if name == "training_curves":
        return Inputs(runs=_unique(k for k in grid.main_runs() if _trained(k)))
    if name in KERNEL_FIGURES:
        return _benchmark_inputs(grid, "kernels")
    if name in SCALE_FIGURES:
        return _benchmark_inputs(grid, "scale")
    if name == "label_frequency":
        # the order of the preset knows where the head ends
        return Inputs(corpora=grid.datasets, orders=_order_paths(grid, [None]))
    if name == "cohesion":
        return Inputs(orders=_order_paths(grid, GROUPINGS))
    return Inputs(runs=tuple(grid.main_runs()))


def run_files(run: RunDir, key: RunKey) -> list[Path]:
    """What a finished run has for tables and figures; raises ConfigError for an unknown method.

    Linear methods have no history. Nothing reads the predictions of trials.
    """
    files = [run.config, run.metrics, run.resources]
    history = [run.history] if _trained(key) else []
    predictions = [] if key.is_trial else [run.predictions]
    return [*files, *history, *predictions]


def preset(grid: GridConfig, dataset: str) -> RunKey:
    """The run of the `haste` preset whose label orders are shown, in the grid or not: first seed."""
    return RunKey(dataset, "haste", DEFAULT_VARIANT, (grid.ablation_seeds or grid.seeds)[0])


def order_path(grid: GridConfig, dataset: str, grouping: str | None) -> Path:
    """The order file of the `haste` preset with another grouping (None: its own), first seed."""
    run = grid.resolve(preset(grid, dataset))
    layer = run.layer if grouping is None else dataclasses.replace(run.layer, grouping=grouping)
    return grid.layout.order(dataset, OrderSpec.of_layer(layer, run.encoder, run.seed).name)


def _order_paths(grid: GridConfig, groupings: Iterable[str | None]) -> tuple[Path, ...]:
    groupings = tuple(groupings)
    return _unique(order_path(grid, each, name) for each in grid.datasets for name in groupings)


def _ablation_runs(grid: GridConfig, names: Iterable[str]) -> tuple[RunKey, ...]:
    return _unique(key for name in names for key in grid.ablation_runs(name))


def claimed_runs(grid: GridConfig, name: str) -> list[RunKey]:
    """The runs of ablation `name`, one of CLAIM_VARIANTS, that its claim is about; none where it is not in
    the grid."""
    if name not in grid.ablations:
        return []
    chosen = ablation(name)
    wanted = {DEFAULT_VARIANT, *map(chosen.variant_name, CLAIM_VARIANTS[name])}
    return [key for key in grid.ablation_runs(name) if key.variant in wanted]


def _benchmarks(grid: GridConfig, name: str) -> tuple[Path, ...]:
    return tuple(sorted(grid.layout.benchmarks.glob(f"*/{name}.csv")))


def _benchmark_inputs(grid: GridConfig, name: str) -> Inputs:
    files = _benchmarks(grid, name)
    names = (SCALE_MACHINE,) if name == "scale" else (MACHINE,)
    companions = (path.with_name(own) for path in files for own in names)
    return Inputs(benchmarks=files, beside=tuple(path for path in companions if path.exists()))


def _trained(key: RunKey) -> bool:
    return method(key.method).kind == "trained"


def _unique(items: Iterable) -> tuple:
    return tuple(dict.fromkeys(items))


def _check(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise ConfigError(f"there is no {kind} {name!r} in this grid.{suggest(name, known)}")
