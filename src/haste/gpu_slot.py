"""A slot on one GPU of this machine for a process: so many on each GPU, held until the process ends.

A slot is a locked file. The process keeps it open and the kernel unlocks it at its end, by SIGKILL too;
there is no server, and all that a user starts on a machine shares the slots, from whatever folder.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from haste.errors import ConfigError
from haste.resources import AT_ONCE

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 1.0


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them: those of this variable, else
    all that nvidia-smi lists, by index."""
    if VISIBLE not in environment:
        return [str(index) for index in range(len(_uuids()))]
    names = [name.strip() for name in environment[VISIBLE].split(",")]
    # as CUDA reads it: the first that names none ends the list
    return names[: next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))]


def take_slot(gpus: Sequence[str], per_gpu: int, folder: Path) -> tuple[str, int]:
    """Wait for one of `per_gpu` slots on each of `gpus`, on the one with the most that are free.

    Returns the GPU's name and the descriptor of the locked file, which the process must keep open.
    """
    uuids = _uuids()
    # in a job that was given some of the GPUs, an index names another GPU than in the next job
    keys = {
        name: uuids[int(name)] if name in map(str, range(len(uuids))) else name for name in gpus
    }
    waited = False
    while True:
        chooser = _open(folder / "choosing")
        # nobody else must see the slots as taken that are only looked at here
        fcntl.flock(chooser, fcntl.LOCK_EX)
        free = {name: _free(folder, key, per_gpu) for name, key in keys.items()}
        chosen = max(free, key=lambda name: len(free[name]))
        kept = free[chosen][:1]
        for descriptor in [chooser, *(each for found in free.values() for each in found)]:
            if descriptor not in kept:
                os.close(descriptor)
        if kept:
            return chosen, kept[0]
        if not waited:
            log.info("waiting for one of %d slots on %d GPUs", per_gpu * len(gpus), len(gpus))
            waited = True
        time.sleep(POLL_SECONDS)


def execute(command: Sequence[str], per_gpu: int) -> NoReturn:
    """Become `command`, with a slot and its GPU the only visible one; without a GPU just become it.

    It is this very process, so signals reach it and its exit code is this one's.
    """
    environment = dict(os.environ)
    gpus = visible_gpus(environment)
    if gpus:
        name, descriptor = take_slot(gpus, per_gpu, _folder())
        os.set_inheritable(descriptor, True)
        log.info("on GPU %s", name)
        environment |= {VISIBLE: name, AT_ONCE: str(per_gpu)}
    os.execvpe(command[0], list(command), environment)


def _free(folder: Path, key: str, per_gpu: int) -> list[int]:
    """The slots of a GPU that nobody has, locked."""
    found = []
    for index in range(per_gpu):
        descriptor = _open(folder / f"{key}.{index}")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            found.append(descriptor)
    return found


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _folder() -> Path:
    """One for each user of this machine."""
    folder = Path(tempfile.gettempdir(), f"haste-gpu-slots-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(
            f"{folder}: belongs to somebody else; set TMPDIR to a folder of your own."
        )
    return folder


def _uuids() -> list[str]:
    """Of the machine's GPUs, by index; none where nvidia-smi is not there or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run(
        [program, "--query-gpu=uuid", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return listed.stdout.split() if listed.returncode == 0 else []
