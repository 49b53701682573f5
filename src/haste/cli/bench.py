"""Subcommands that measure this machine's GPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

log = logging.getLogger(__name__)

bench = typer.Typer(no_args_is_help=True, help="Measure the kernels on this machine.")


def register(app: typer.Typer) -> None:
    """Add this module's subcommands to the command."""
    app.add_typer(bench, name="bench")


@bench.command("kernels")
def kernels(
    out: Annotated[
        Path, typer.Option(help="Folder of results: OUT/<device>/kernels.csv and machine.json.")
    ] = Path("results/benchmarks"),
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows as shape/layer/direction, * for any, or one of the three names. Repeatable; "
            "the file then has these rows alone."
        ),
    ] = None,
    sweeps: Annotated[bool, typer.Option(help="Vary fan-in, group size and batch as well.")] = True,
    rep: Annotated[
        float, typer.Option(min=1.0, help="Milliseconds of timing for each row.")
    ] = 30.0,
    commit: Annotated[
        str | None, typer.Option(help="The code's commit, where git cannot tell it.")
    ] = None,
) -> None:
    """Time products and steps of the output layers; a time counts only if the result was right.

    Needs a CUDA GPU.
    """
    from haste.benchmarks import authors
    from haste.benchmarks.gpu import Gpu
    from haste.benchmarks.kernels import bench as measure
    from haste.benchmarks.kernels import plan

    stopwatch = Gpu(rep)
    rows = plan(sweeps=sweeps, only=only or (), released=authors.installed())
    log.info("wrote %s", measure(out, rows, stopwatch, commit=commit))
