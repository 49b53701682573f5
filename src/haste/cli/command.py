"""Assembles the subcommands; errors of haste and of the file system become one line and exit code 2.

Modules of subcommands import torch and the like inside the functions, so `haste --help` is quick.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from haste.errors import HasteError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sparse output layers for extreme multi-label classification: every stage of the replication.",
)


@app.callback()
def configure(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details.")] = False,
) -> None:
    """Set up logging on stderr: rich on a terminal, plain lines in a file."""
    level = logging.DEBUG if verbose else logging.INFO
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
        logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
    else:
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")


def main() -> None:
    """Entry point: errors of haste and of the file system end in one message and exit code 2; a bug keeps
    its traceback."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # the reader has closed the pipe; the rest of the buffer must not be written at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except HasteError as error:
        sys.exit(_refuse(error, error.exit_code))
    except OSError as error:
        from haste.files import is_full

        if is_full(error):
            where = f"writing {error.filename}" if error.filename else "writing"
            reason = error.strerror or "No space left on device"
            sys.exit(_refuse(f"disk full while {where} ({reason}); free space and run again."))
        # the traceback, with --verbose
        logging.getLogger(__name__).debug("%s", error, exc_info=error)
        sys.exit(_refuse(_reason(error)))


def _reason(error: OSError) -> str:
    """One line with path and reason."""
    if error.filename is None:
        return " ".join(str(error).split())
    reason = error.strerror or type(error).__name__
    if isinstance(error, FileExistsError):
        reason = "is there already, and is no folder"
    # of a failed rename, the new name
    return f"{os.fsdecode(error.filename2 or error.filename)}: {reason}"


def _refuse(message: object, code: int = 2) -> int:
    sys.stderr.write(f"haste: error: {message}\n")
    return code


def _register() -> None:
    from haste.cli import (
        bench,
        data,
        evaluation,
        gpu,
        labels,
        plan,
        report,
        synth,
        training,
        transfer,
    )

    for module in (data, synth, labels, training, evaluation, bench, report, plan, transfer, gpu):
        module.register(app)


_register()
