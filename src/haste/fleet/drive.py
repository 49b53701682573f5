"""Working off a list of runs on one machine: each a process of its own, so many at once on a GPU."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from haste.errors import DataError
from haste.files import read_json, write_yaml
from haste.fleet.places import Place, fitting
from haste.fleet.state import clear, log_path
from haste.fleet.worklist import Task
from haste.grid import GridConfig
from haste.paths import RunDir
from haste.resources import AT_ONCE
from haste.runs import is_done, run_dir

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
GRACE_SECONDS = 60.0
"""that a run has for its checkpoint when it is told to stop"""
STOPPED = (143, -signal.SIGTERM)
"""exit codes of a run that was told to stop: after a checkpoint, and before there was anything to save"""
SHOWN_LINES = 15
"""of the log of a run that failed"""

Command = Callable[[Path], Sequence[str]]
"""from a run's config.yaml to what trains it"""


@dataclass
class Summary:
    """Names of the runs, by how they ended."""

    done: list[str] = field(default_factory=list)
    """finished now or before"""
    failed: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    """not started, or stopped before their end"""


@dataclass
class _Running:
    task: Task
    run: RunDir
    place: Place
    log: Path
    process: subprocess.Popen
    began: float


@dataclass
class _Stop:
    """Why no more runs start; empty as long as they do."""

    reason: str = ""


def train_command(config: Path) -> list[str]:
    """What trains the run of a config.yaml."""
    return [sys.executable, "-m", "haste", "train", str(config)]


def drive(
    grid: GridConfig,
    tasks: Sequence[Task],
    places: Sequence[Place],
    *,
    jobs: int,
    seconds: float | None = None,
    logs: Path = Path("logs"),
    command: Command = train_command,
    grace: float = GRACE_SECONDS,
) -> Summary:
    """Train the open ones of `tasks` in their order, at most `jobs` at once at each place.

    A run that fails is not tried again, the others go on. After `seconds`, or on SIGTERM or SIGINT,
    runs are told to stop, have `grace` seconds to write a checkpoint, and go on from it when this is
    called again. Output goes to LOGS/<grid>/<dataset>/<method>/<variant>/seed<k>.log. Raises ConfigError
    for a run that needs a GPU where there is none.
    """
    summary = Summary()
    shared = {AT_ONCE: str(jobs)}
    places = [replace(each, environment={**each.environment, **shared}) for each in places]
    waiting: list[tuple[Task, list[Place]]] = []
    for task in tasks:
        config = grid.resolve(task.key)
        if is_done(run_dir(grid, task.key), config):
            summary.done.append(task.name)
        else:
            waiting.append((task, fitting(config, places)))
    log.info("%d runs are done, %d open", len(summary.done), len(waiting))
    running: list[_Running] = []
    begin = time.monotonic()
    with _signals() as stop:
        try:
            while waiting or running:
                if seconds is not None and time.monotonic() - begin >= seconds:
                    stop.reason = stop.reason or f"{seconds:.0f} s are over"
                if stop.reason:
                    break
                for item in list(waiting):
                    place = _freest(item[1], running, jobs)
                    if place is None:
                        continue
                    waiting.remove(item)
                    started = _start(grid, item[0], place, logs, command, summary)
                    running += [started] if started else []
                time.sleep(POLL_SECONDS)
                _collect(running, summary)
            if stop.reason:
                log.warning("%s: stopping %d runs", stop.reason, len(running))
        finally:
            # whatever ends this, no process is left behind
            _end(running, summary, grace)
    summary.open += [task.name for task, _ in waiting]
    log.info(
        "%d done, %d failed, %d open", len(summary.done), len(summary.failed), len(summary.open)
    )
    for name in summary.failed:
        log.error("failed: %s", name)
    return summary


def _freest(places: Sequence[Place], running: Sequence[_Running], jobs: int) -> Place | None:
    """The place with the fewest runs, the first of several; None where all are full."""
    counts = {place.name: sum(each.place == place for each in running) for place in places}
    place = min(places, key=lambda place: counts[place.name])
    return place if counts[place.name] < jobs else None


def _start(
    grid: GridConfig, task: Task, place: Place, logs: Path, command: Command, summary: Summary
) -> _Running | None:
    """Start a run; None where another process trains it, or has finished it by now."""
    run, key = run_dir(grid, task.key), task.key
    path = log_path(grid, key, logs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as output:
        if not _lock(output):
            log.warning("%s: another process trains it; left alone", task.name)
            summary.open.append(task.name)
            return None
        config = grid.resolve(key)
        if is_done(run, config):
            summary.done.append(task.name)
            return None
        output.truncate(0)
        clear(run, path)
        write_yaml(run.config, config.as_dict())
        process = subprocess.Popen(
            list(command(run.config)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **place.environment},
            # Ctrl-C in a terminal reaches a whole session, and would end a run without a checkpoint
            start_new_session=True,
        )
    log.info("%s: started on %s", task.name, place.name)
    return _Running(task, run, place, path, process, time.monotonic())


def _lock(output: IO[bytes]) -> bool:
    """Lock a run's log, unless another process has.

    The run inherits the file and with it the lock, so a run whose driver was killed keeps it to its end
    and the next driver does not start it a second time.
    """
    try:
        fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _collect(running: list[_Running], summary: Summary) -> None:
    """Take the runs that have ended out of `running`."""
    for each in list(running):
        if each.process.poll() is not None:
            running.remove(each)
            _ended(each, summary)


def _ended(each: _Running, summary: Summary, killed: bool = False) -> None:
    name, code = each.task.name, each.process.returncode
    spent = time.monotonic() - each.began
    precision = _precision(each.run) if code == 0 else None
    if precision is not None:
        log.info("%s: done, P@1 %.2f, %.0f s", name, precision, spent)
        summary.done.append(name)
    elif code in STOPPED or killed:
        how = "killed" if killed else "stopped"
        log.warning("%s: %s after %.0f s; run again to go on", name, how, spent)
        summary.open.append(name)
    else:
        lines = "\n".join(_tail(each.log))
        log.error(
            "%s: failed (exit code %s) after %.0f s; %s:\n%s", name, code, spent, each.log, lines
        )
        summary.failed.append(name)


def _precision(run: RunDir) -> float | None:
    """P@1 of a finished run; None where it left no metrics, whatever its exit code says."""
    try:
        return float(read_json(run.metrics)["metrics"]["P@1"])
    except (DataError, KeyError, TypeError, ValueError):
        return None


def _end(running: list[_Running], summary: Summary, grace: float) -> None:
    """Tell runs to stop, wait, and kill those that are still there."""
    for each in running:
        each.process.terminate()
    deadline = time.monotonic() + grace
    while running and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        _collect(running, summary)
    for each in running:
        # the session is the run's own: itself and what it started
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.wait()
        _ended(each, summary, killed=True)
    running.clear()


def _tail(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, SHOWN_LINES)]


@contextlib.contextmanager
def _signals() -> Iterator[_Stop]:
    """Where SIGTERM and SIGINT are noted instead of ending this process."""
    stop = _Stop()

    def note(number: int, _frame: object) -> None:
        stop.reason = signal.Signals(number).name

    before = {each: signal.signal(each, note) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
