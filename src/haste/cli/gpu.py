"""Subcommand: a slot on a GPU."""

from __future__ import annotations

from typing import Annotated

import typer

from haste.cli.app import app


@app.command("gpu-slot")
def gpu_slot(
    command: Annotated[list[str], typer.Argument(help="After --: the command and its options.")],
    runs_per_gpu: Annotated[
        int,
        typer.Option(min=1, help="Commands at once on each GPU; must be the same in all of them."),
    ] = 1,
) -> None:
    """Run a command on one of several GPUs, when one is free.

    All commands that a user starts this way on a machine are distributed over
    its GPUs, or those in CUDA_VISIBLE_DEVICES; each sees only the one it got. A
    command waits while all are taken. Without a GPU it runs at once.
    """
    from haste.gpu_slot import execute

    execute(command, runs_per_gpu)
