"""One process at a time in a run's folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haste.errors import HasteError
from haste.files import is_alive

log = logging.getLogger(__name__)

FILE = ".lock"
BEAT_SECONDS = 10.0
"""between heartbeats of the holder of a lock, which update the time of the file"""
WATCH_SECONDS = 60.0
"""without a heartbeat, after which a lock of another machine counts as abandoned"""


class RunLockedError(HasteError):
    """Another process works in the folder."""

    exit_code = 75
    """EX_TEMPFAIL: try again later"""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raises RunLockedError, which names the holder, where another process has it.

    The system frees the lock when a process ends, however it ends. On folders shared between machines that
    may not see each other's locks, a lock of another machine is watched for a heartbeat.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    descriptor = _acquire(path)
    done = threading.Event()
    heartbeat = threading.Thread(target=_heartbeat, args=(path, done), daemon=True)
    try:
        heartbeat.start()
        yield
    finally:
        done.set()
        heartbeat.join()
        path.unlink(missing_ok=True)
        os.close(descriptor)
        if created:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _check_free(path, descriptor)
            with contextlib.suppress(FileNotFoundError):
                # the former holder may have removed the file in between
                if os.fstat(descriptor).st_ino == path.stat().st_ino:
                    _write(descriptor)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _check_free(path: Path, descriptor: int) -> None:
    """Lock the file; RunLockedError where a running process holds it."""
    system_locks = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _refusal(path, _holder(descriptor)) from None
        system_locks = False  # a file system without locks
    holder = _holder(descriptor)
    if not holder:
        return
    if holder["host"] == socket.gethostname():
        if not system_locks and is_alive(int(holder["pid"])):
            raise _refusal(path, holder)
        return
    log.warning(
        "%s: was left by or belongs to process %s on %s; watching for a heartbeat, %.0f s",
        path,
        holder["pid"],
        holder["host"],
        WATCH_SECONDS,
    )
    before, end = os.fstat(descriptor).st_mtime_ns, time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        time.sleep(min(BEAT_SECONDS / 2, WATCH_SECONDS))
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime_ns != before:
                raise _refusal(path, holder)


def _refusal(path: Path, holder: dict[str, Any]) -> RunLockedError:
    who = "another process"
    if holder:
        who = f"process {holder['pid']} on {holder['host']}, since {holder['since']},"
    return RunLockedError(
        f"{path.parent}: {who} works in this folder. Wait for it or end it; its lock ({path}) ends with it."
    )


def _holder(descriptor: int) -> dict[str, Any]:
    """pid, host and since of the holder; empty where the file is empty or incomplete."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return {key: holder[key] for key in ("pid", "host", "since")}
    except (ValueError, KeyError, TypeError):
        return {}


def _write(descriptor: int) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)


def _heartbeat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
