"""Assembles the subcommands; errors of haste and of the file system become one line and exit code 2.

Modules of subcommands import torch and the like inside the functions, so `haste --help` is quick.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys

from haste.cli.app import anywhere_first, app
from haste.errors import HasteError

for stage in (
    *("data", "synth", "labels", "training", "evaluation"),
    *("bench", "report", "plan", "tune", "transfer", "gpu"),
):
    # in the order in which `haste --help` lists them
    importlib.import_module(f"haste.cli.{stage}")


def main() -> None:
    """Entry point: errors of haste and of the file system end in one message and exit code 2; a bug keeps
    its traceback."""
    try:
        try:
            app(anywhere_first(sys.argv[1:]))
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
