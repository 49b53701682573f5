"""One process at a time in a run's folder."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from haste.errors import HasteError

log = logging.getLogger(__name__)

FILE = ".lock"


class RunLockedError(HasteError):
    """Another process works in the folder."""

    exit_code = 75
    """EX_TEMPFAIL: try again later"""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raises RunLockedError, which names the holder, where another process has it.

    The system frees the lock when a process ends, however it ends.
    """
    created = not folder.exists()
    path = folder / FILE
    with _lock(path) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if created:
                with contextlib.suppress(OSError):  # it is not empty
                    folder.rmdir()


def _lock(path: Path) -> TextIO:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except (FileNotFoundError, FileExistsError):
            if os.path.lexists(path.parent) and not path.parent.is_dir():
                raise
            # the former holder has removed the folder that it had made
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read() or "another process"
            file.close()
            raise RunLockedError(
                f"{path.parent}: {who} works in this folder. Wait for it or end it; its lock ({path}) ends "
                "with it."
            ) from None
        except OSError as error:
            log.warning(
                "%s: no lock here (%s); let no other process work in it", path.parent, error
            )
        with contextlib.suppress(FileNotFoundError):
            # the former holder may have removed the file in between
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()
