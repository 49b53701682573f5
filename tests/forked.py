"""Commands in processes that begin with their imports done, which take most of the time of short ones."""

import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["snakemake.cli", "haste.cli", "haste.data.build", "haste.planning", "haste.training.run"]
)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    """and stderr, together"""


def start(
    main: str, arguments: Sequence[str], output: Path, environment: Mapping[str, str], cwd: Path
) -> BaseProcess:
    """Start "module:function", which reads sys.argv, as a command of its own whose output goes to a file."""
    process = CONTEXT.Process(
        target=_command, args=(main, list(arguments), str(output), dict(environment), str(cwd))
    )
    process.start()
    return process


def run(
    main: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
    timeout: float = 240,
) -> Done:
    """Run a command to its end; see `start`."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        process = start(main, arguments, output, environment, cwd or Path.cwd())
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(output.read_text())
        return Done(process.exitcode, output.read_text())


def _command(
    main: str, arguments: list[str], output: str, environment: dict[str, str], cwd: str
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    with open(os.devnull) as nothing, open(output, "wb") as file:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    module, _, function = main.partition(":")
    sys.argv = [module.split(".")[0], *arguments]
    sys.exit(getattr(importlib.import_module(module), function)())
