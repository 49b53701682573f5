"""Subcommands that measure kernels and training on this machine's GPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from haste.cli.app import app

log = logging.getLogger(__name__)

bench = typer.Typer(
    invoke_without_command=True, help="Measure kernels and training steps on this machine."
)
app.add_typer(bench, name="bench")


@bench.callback()
def show_help(context: typer.Context) -> None:
    """Without a subcommand print the help, as `haste` does."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


OutOption = Annotated[
    Path, typer.Option("--out", help="Folder of results: csv and json files in OUT/<device>.")
]
BENCHMARKS = Path("results/benchmarks")
SecondsOption = Annotated[
    float | None, typer.Option("--seconds", min=0.0, help="Nothing begins after this many seconds.")
]
PaperOption = Annotated[
    Path, typer.Option("--grid", help="The grid whose data sets and hyper-parameters are measured.")
]
PAPER = Path("workflow/configs/paper.yaml")


@bench.command("kernels")
def kernels(
    out: OutOption = BENCHMARKS,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows as shape/layer/direction, * for any, or one of the three names. Repeatable; "
            "the file then has only these rows."
        ),
    ] = None,
    sweeps: Annotated[bool, typer.Option(help="Vary fan-in, group size and batch as well.")] = True,
    rep: Annotated[
        float, typer.Option(min=1.0, help="Milliseconds of timing for each row.")
    ] = 30.0,
) -> None:
    """Time products and steps of the output layers, after checking their results.

    Needs a CUDA GPU. The released extension is timed beside them where it is installed, a plain CUDA fixed fan-in
    where HASTE_ECML23 names a clone of github.com/xmc-aalto/ecml23-sparse.
    """
    from haste.bench import plain_cuda, released_cuda
    from haste.bench.kernels import bench as measure
    from haste.bench.kernels import plan
    from haste.bench.timing import Gpu

    timer = Gpu(rep)
    rows = plan(
        sweeps=sweeps,
        only=only or (),
        released=released_cuda.installed(),
        plain=plain_cuda.installed(),
    )
    log.info("wrote %s", measure(out, rows, timer))


@bench.command("scale")
def scale(
    out: OutOption = BENCHMARKS,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows as dataset/method/preset, * for any, or one of the three names; the data set of "
            "increasing label counts is sweep. Repeatable; other rows of the same machine and commit are kept."
        ),
    ] = None,
    seconds: SecondsOption = None,
    grid: PaperOption = PAPER,
) -> None:
    """Time training steps and measure memory at the paper's sizes, on random documents.

    Needs a CUDA GPU, but no data set.
    """
    from haste.bench.scale import bench as measure
    from haste.bench.scale import plan
    from haste.grid import read_grid

    settings = read_grid([grid])
    rows = plan(settings, only or ())
    log.info("wrote %s", measure(out, settings, rows, seconds=seconds))


@bench.command("sharded")
def sharded(
    out: Annotated[
        Path, typer.Option(help="Table to write (.csv); beside it the machine (.json).")
    ],
    dataset: Annotated[
        list[str] | None, typer.Option(help="Repeatable; Amazon-3M and LF-Paper2Keywords-8.6M.")
    ] = None,
    labels: Annotated[
        list[int] | None,
        typer.Option(
            help="Sizes of an output layer alone; 0: as many as fit. Repeatable; 400M and 0."
        ),
    ] = None,
    seconds: SecondsOption = None,
    grid: PaperOption = PAPER,
) -> None:
    """Time training steps on one GPU and on several, and find the most labels that fit.

    Start it with torchrun --nproc-per-node N -m haste bench sharded: N processes
    with a GPU each. Needs no data set.
    """
    import torch

    from haste.bench.sharded import DATASETS, GOAL_LABELS, Bench, workloads
    from haste.device import choose_device
    from haste.distributed import launched
    from haste.grid import read_grid

    choose_device("cuda")
    measured = workloads(read_grid([grid]), dataset or DATASETS)
    with launched("cuda") as ranks:
        device = torch.device("cuda", torch.cuda.current_device())
        Bench(out, ranks, device).run(measured, labels or (GOAL_LABELS, 0), seconds)
    if ranks.first:
        log.info("wrote %s", out)
