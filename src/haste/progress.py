"""Progress on stderr while a user waits, when that is a terminal; in a log there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.status import Status


@contextmanager
def downloading(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar in bytes; yields what sets done and total."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with _progress(TextColumn("Fetching {task.description}"), *columns) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


@contextmanager
def counting(
    what: str, total: int | None = None, *, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """A count, of `total` with a bar; yields what sets it."""
    columns: tuple[ProgressColumn, ...] = (SpinnerColumn(), TextColumn("{task.description}"))
    if total is None:
        columns += (MofNCompleteColumn(), TimeElapsedColumn())
    else:
        columns += (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with _progress(*columns, shown=shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def working(what: str) -> AbstractContextManager[Status]:
    """A spinner, while something is done that cannot be counted."""
    return Console(stderr=True).status(what)


def _progress(*columns: ProgressColumn, shown: bool = True) -> Progress:
    console = Console(stderr=True)
    hidden = not (shown and console.is_terminal)
    return Progress(*columns, console=console, transient=True, disable=hidden)
