"""Subcommands about a grid of runs: what they will take, and the configuration of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from haste.cli.data import DEFAULT_REGISTRY, RegistryOption

GridOption = Annotated[Path, typer.Option(help="A grid's configuration: config.yaml and the like.")]


def register(app: typer.Typer) -> None:
    """Add this module's subcommands to the command."""
    app.command("plan")(plan)
    app.command("configure")(configure)


def plan(grid: GridOption, registry: RegistryOption = DEFAULT_REGISTRY) -> None:
    """List the runs of a grid with expected minutes, memory and disk; trains nothing."""
    from rich.console import Console
    from rich.table import Table

    from haste.config import GridConfig
    from haste.data.registry import load_registry
    from haste.files import read_yaml
    from haste.planning import MIB, plan_runs

    runs = plan_runs(GridConfig.from_dict(read_yaml(grid)), load_registry(registry))
    table = Table(title=f"Runs of {grid}", caption_justify="left")
    for heading in ("data set", "method", "variant", "seed", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("minutes", "memory MiB", "disk MiB"):
        table.add_column(heading, justify="right")
    table.add_column("known from")
    for run in runs:
        table.add_row(
            run.key.dataset,
            run.key.method,
            run.key.variant,
            str(run.key.seed),
            "done" if run.done else "to do",
            f"{run.seconds / 60:.1f}",
            f"{run.memory / MIB:.0f}",
            f"{run.disk / MIB:.0f}",
            run.source,
        )
    left = [run for run in runs if not run.done]
    minutes = sum(run.seconds for run in left) / 60
    disk = sum(run.disk for run in runs) / MIB
    memory = max((run.memory for run in runs), default=0) / MIB
    table.caption = (
        f"{len(left)} of {len(runs)} runs to do: {minutes:.0f} minutes one after the other, less "
        f"by as many as run at once; at most {memory:.0f} MiB a run; {disk:.0f} MiB on disk in all."
    )
    console = Console()
    # a log has no width of its own, and 80 columns would fold every name
    Console(width=None if console.is_terminal else 132).print(table)


def configure(
    grid: GridOption,
    dataset: Annotated[str, typer.Option(help="A data set of the grid.")],
    method: Annotated[str, typer.Option(help="A method of the grid.")],
    out: Annotated[Path, typer.Option(help="The file to write: RUN_DIR/config.yaml.")],
    variant: Annotated[str, typer.Option(help="An ablation's variant.")] = "default",
    seed: Annotated[int, typer.Option(help="The run's seed.")] = 0,
) -> None:
    """Write the configuration of one run of a grid, with every value resolved."""
    from haste.config import GridConfig, RunKey
    from haste.errors import ConfigError
    from haste.files import read_yaml, write_yaml

    chosen = GridConfig.from_dict(read_yaml(grid))
    key = RunKey(dataset, method, variant, seed)
    if key not in chosen.runs():
        raise ConfigError(
            f"{grid}: no run of {method}, variant {variant}, seed {seed} on {dataset} in this grid; "
            f"`haste plan --grid {grid}` lists those there are."
        )
    write_yaml(out, chosen.run_settings(key))
