"""SIGINT, SIGHUP and SIGTERM: a run that is told to stop keeps what it has done and says so."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class Stopped(SystemExit):
    """The run ends here, with the exit code that shells give a process that a signal ended."""


class StopSignals:
    """What signals have asked for. They end the run at once, but while `held`, when `check` does."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.kept = "before a step was taken"
        """what a stop finds: the end of the sentence that says so"""
        self._held = False

    def receive(self, number: int, _frame: object = None) -> None:
        """The handler."""
        self.number = self.number or number
        if not self._held:
            self.check()

    def check(self) -> None:
        """End the run if a signal has come."""
        if self.number is not None:
            raise Stopped(128 + self.number)

    @contextlib.contextmanager
    def held(self, *, last: bool = False) -> Iterator[None]:
        """While what is done in the block must not be cut short, such as a step or a checkpoint.

        After the `last` block nothing is left that could be stopped.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = last
        if not last:
            self.check()


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Listens to SIGNALS, where they are not ignored (nohup) and this is the main thread."""
    stop = StopSignals()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop.receive)
    try:
        yield stop
    except Stopped:
        name = signal.Signals(stop.number or 0).name
        log.warning("stopped by %s %s; run again to resume", name, stop.kept)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
