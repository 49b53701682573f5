"""Subcommands about a grid of runs: expected resources, and the configuration of each run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from haste.cli.app import GridOption, RegistryOption, app
from haste.paths import REGISTRY

if TYPE_CHECKING:
    from rich.table import Table

    from haste.planning import DataPlan, RunPlan


@app.command("plan")
def plan(
    grid: GridOption,
    registry: RegistryOption = REGISTRY,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where runs with `device: auto` are trained; auto: on what is here."),
    ] = "auto",
) -> None:
    """List the data and runs of a grid with expected hours, memory and disk; trains nothing."""
    from rich.console import Console

    from haste.data.registry import load_registry
    from haste.gpu_slot import visible_gpus
    from haste.grid import read_grid
    from haste.planning import plan_data, plan_runs
    from haste.pretrained import check_models
    from haste.settings import naming

    chosen = read_grid(grid)
    known = load_registry(registry)
    with naming(*grid):
        known = known.with_datasets(chosen.dataset_settings)
        check_models(chosen, known)
        gpu = device == "cuda" or (device == "auto" and bool(visible_gpus(os.environ)))
        data, runs = plan_data(chosen, known), plan_runs(chosen, known, gpu=gpu)
    named = ", ".join(map(str, grid))
    console = Console()
    # a log has no width, and the default of 80 columns would wrap names
    console = Console(width=None if console.is_terminal else 132)
    console.print(_data_table(data, f"Data of {named}"))
    console.print(_run_table(runs, f"Runs of {named}"))


def _data_table(data: Sequence[DataPlan], title: str) -> Table:
    table = _table(title, ("data set", "state"), ("train", "test", "labels", "disk"))
    for dataset in data:
        size = dataset.size
        table.add_row(
            dataset.name,
            "made" if dataset.made else "to make",
            *(f"{n:,}" if n else "not known" for n in (size.train, size.test, size.labels)),
            _bytes(dataset.disk) if size.train else "not known",
        )
    table.caption = (
        f"At most {_bytes(sum(dataset.disk for dataset in data))} on disk: texts, tokens, label embeddings "
        "and orders, with every document at full length; without data sets of unknown size."
    )
    return table


def _run_table(runs: Sequence[RunPlan], title: str) -> Table:
    """A line per data set, method and variant, with the first seed's values."""
    words = ("data set", "method", "variant", "seeds", "to do", "known from")
    values = ("time per seed", "memory", "disk per seed", "asks for", "and for")
    table = _table(title, words, values)
    rows: dict[tuple, list[RunPlan]] = {}
    for run in runs:
        rows.setdefault((run.key.dataset, run.key.method, run.key.variant), []).append(run)
    for names, seeds in rows.items():
        run = seeds[0]
        table.add_row(
            *names,
            str(len(seeds)),
            str(sum(not run.done for run in seeds)),
            run.source,
            "" if run.seconds is None else _time(run.seconds),
            "" if run.memory is None else _bytes(run.memory),
            _bytes(run.disk),
            _time(60 * run.request.minutes),
            _bytes(run.request.memory * 2**20),
        )
    left = [run for run in runs if not run.done]
    needs = []
    for on_gpu, device in ((True, "GPU"), (False, "CPU")):
        if seconds := sum(run.seconds or 0.0 for run in left if run.on_gpu == on_gpu):
            needs.append(f"{_time(seconds)} on a {device}")
    if unknown := sum(run.seconds is None for run in left):
        needs.append(f"{unknown} of them not measured")
    memory = max((run.memory or 0 for run in runs), default=0)
    table.caption = (
        f"{len(left)} of {len(runs)} runs to do"
        + (f", one after the other {', '.join(needs)}. " if needs else ". ")
        + f"{_bytes(sum(run.disk for run in runs))} on disk in all"
        + (f"; at most {_bytes(memory)} of memory a run." if memory else ".")
        + " A job asks for more time and main memory than is expected, and for no more than its site allows."
    )
    return table


def _table(title: str, words: Sequence[str], values: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(title=title, caption_justify="left")
    for heading in words:
        table.add_column(heading, overflow="fold")
    for heading in values:
        table.add_column(heading, justify="right")
    return table


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bytes(number: float) -> str:
    return f"{number / 2**20:.0f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"


@app.command("configure")
def configure(
    grid: GridOption,
    dataset: Annotated[str, typer.Option(help="A data set of the grid.")],
    method: Annotated[str, typer.Option(help="A method of the grid.")],
    out: Annotated[Path, typer.Option(help="The file to write: RUN_DIR/config.yaml.")],
    variant: Annotated[str, typer.Option(help="An ablation's variant.")] = "default",
    seed: Annotated[int, typer.Option(help="The run's seed.")] = 0,
) -> None:
    """Write the configuration of one run of a grid, with every value resolved."""
    from haste.errors import ConfigError, suggest
    from haste.files import write_yaml
    from haste.grid import RunKey, read_grid
    from haste.settings import naming

    chosen = read_grid(grid)
    key = RunKey(dataset, method, variant, seed)
    runs = chosen.all_runs()
    with naming(*grid):
        for name, value in asdict(key).items():
            known = {getattr(run, name) for run in runs}
            if value not in known:
                hint = suggest(str(value), known)
                raise ConfigError(f"no run of this grid has {name} {value}.{hint}")
            runs = [run for run in runs if getattr(run, name) == value]
        write_yaml(out, chosen.run_settings(key))
