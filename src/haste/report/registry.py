"""The registry of tables and figures: what each is called, reads and shows, and what makes it.

`@table` and `@figure` register a function; workflow and commands ask here. Neither torch nor pandas is
imported: the Snakefile asks on every start, so the modules that register import them where they compute.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haste.config import Grouping
from haste.errors import ConfigError, suggest
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
from haste.labels.spec import OrderSpec
from haste.report.benchmarks import MACHINES

MODULES = ("tables", "claims", "tuning", "benchmark_tables", "figures", "benchmark_figures")
"""of this package: those that register"""


@dataclass(frozen=True)
class Inputs:
    """What one table or figure reads."""

    runs: tuple[RunKey, ...] = ()
    """runs that must be complete, see `run_files`"""
    corpora: tuple[str, ...] = ()
    """data sets whose corpus folder is read"""
    orders: tuple[Path, ...] = ()
    """order.npz files"""
    benchmarks: tuple[Path, ...] = ()
    """committed benchmark files, results/benchmarks/<device>/<name>.csv; none is needed"""
    companions: tuple[Path, ...] = ()
    """other files that are read with them"""
    partial: bool = False
    """whether it is made of those of the runs that are finished. The workflow makes all of them first, but
    for a grid that says `allow_partial`"""


@dataclass(frozen=True)
class Entry:
    """A registered table or figure."""

    kind: str
    """table or figure"""
    name: str
    title: str
    make: Callable[..., Any]
    """from `load.Sources` to a `render.Table`, or to a figure and the data frame it shows"""
    caption: str
    """of the report, reStructuredText: the docstring of `make` unless given"""
    category: str
    """folder of the report"""
    inputs: Callable[[GridConfig], Inputs]
    """what it reads in a grid; `inputs_of` adds what holds for all"""
    benchmark: str | None = None
    """whose committed files are its inputs: kernels or scale"""
    applies: Callable[[GridConfig], bool] = lambda _: True
    """whether a grid has it"""
    on_request: bool = False
    """made only when asked for by name"""
    long: bool = False
    """whether a reader of the page opens it by its heading"""
    all_methods: bool = False
    """whether it has a row for methods without a run too: another list of methods makes it again"""

    @property
    def target(self) -> str:
        """By which the workflow is asked for it: `ablation_grouping`, but `table_main`: `kernels` and
        `scale` ask for all tables and figures of a benchmark."""
        return self.name if self.category == "Ablations" else f"{self.kind}_{self.name}"

    @property
    def label(self) -> str:
        """In the report's list."""
        return self.name.removeprefix("ablation_").replace("_", " ")

    def inputs_of(self, grid: GridConfig) -> Inputs:
        """What it reads in a grid."""
        inputs = self.inputs(grid)
        return dataclasses.replace(inputs, partial=inputs.partial or grid.allow_partial)


_entries: dict[tuple[str, str], Entry] = {}


def table(name: str, title: str, **options: Any) -> Callable[[Callable], Callable]:
    """Register a function from `load.Sources` to a `render.Table`; options are fields of `Entry`."""
    return _register("table", name, title, **{"category": "Tables", **options})


def figure(name: str, title: str, **options: Any) -> Callable[[Callable], Callable]:
    """Register a function from `load.Sources` to a figure and the data frame that it shows."""
    return _register("figure", name, title, category="Figures", **options)


def _register(kind: str, name: str, title: str, **options: Any) -> Callable[[Callable], Callable]:
    def register(make: Callable) -> Callable:
        settings = {"caption": inspect.getdoc(make), **options}
        if benchmark := options.get("benchmark"):
            settings["inputs"] = lambda grid: benchmark_inputs(grid, benchmark)
        _entries[kind, name] = Entry(kind, name, title, make, **settings)
        return make

    return register


def entries(kind: str, grid: GridConfig) -> dict[str, Entry]:
    """The tables or figures of a grid by name, in the order of the report."""
    for module in MODULES:
        importlib.import_module(f"haste.report.{module}")
    return {e.name: e for e in _entries.values() if e.kind == kind and e.applies(grid)}


def entry(kind: str, name: str, grid: GridConfig) -> Entry:
    """One of them; raises ConfigError for a name that the grid does not have."""
    known = entries(kind, grid)
    if name not in known:
        raise ConfigError(f"there is no {kind} {name!r} in this grid.{suggest(name, known)}")
    return known[name]


def preset(grid: GridConfig, dataset: str) -> RunKey:
    """The run of the `haste` preset whose label orders are shown, in the grid or not: that of the first seed
    of ablations."""
    return RunKey(dataset, "haste", DEFAULT_VARIANT, grid.ablation_seeds[0])


def order_path(grid: GridConfig, dataset: str, grouping: Grouping | None) -> Path:
    """The order file of the `haste` preset with another grouping (None: the preset's), first seed."""
    run = grid.resolve(preset(grid, dataset))
    layer = run.layer if grouping is None else dataclasses.replace(run.layer, grouping=grouping)
    return grid.layout.order(dataset, OrderSpec.of_layer(layer, run.encoder, run.seed).name)


def order_paths(
    grid: GridConfig, datasets: Iterable[str], groupings: Iterable[Grouping | None]
) -> tuple[Path, ...]:
    """The order files of several data sets and groupings, each once."""
    groupings = tuple(groupings)
    return unique(order_path(grid, dataset, name) for dataset in datasets for name in groupings)


def ablation_runs(grid: GridConfig, names: Iterable[str]) -> tuple[RunKey, ...]:
    """The runs of several ablations, each once."""
    return unique(key for name in names for key in grid.ablation_runs(name))


def benchmark_files(grid: GridConfig, name: str) -> tuple[Path, ...]:
    """The committed results of a benchmark, one file a device."""
    return tuple(sorted(grid.layout.benchmarks.glob(f"*/{name}.csv")))


def benchmark_inputs(grid: GridConfig, name: str) -> Inputs:
    """The committed results of a benchmark with what is known of the machines."""
    files = benchmark_files(grid, name)
    machines = (path.with_name(MACHINES[name]) for path in files)
    return Inputs(benchmarks=files, companions=tuple(path for path in machines if path.exists()))


def unique(items: Iterable) -> tuple:
    """Each item once, in the order of its first appearance."""
    return tuple(dict.fromkeys(items))
