"""Subcommand: a slot on a GPU."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this module's subcommand to the command."""
    app.command("gpu-slot")(gpu_slot)


def gpu_slot(
    command: Annotated[list[str], typer.Argument(help="After --: the command and its options.")],
    runs_per_gpu: Annotated[
        int, typer.Option(min=1, help="Commands at once on each GPU; the same for all of them.")
    ] = 1,
) -> None:
    """Run a command on one GPU of several, when it is its turn.

    Commands that are started this way, by whatever on this machine, are spread
    over its GPUs, or those that CUDA_VISIBLE_DEVICES names; each sees its own
    alone. One that finds all taken waits. Without a GPU it just runs.
    """
    from haste.gpu_slot import execute

    execute(command, runs_per_gpu)
