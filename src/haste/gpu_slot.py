"""Slots on the GPUs of this machine: a limited number per GPU, each held by a process until it ends.

A slot is a locked file. The process keeps it open and the operating system unlocks it at the end of the
process, also after SIGKILL. There is no server; all processes of a user on a machine share the slots.
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
    """Names of the GPUs that a process may use: those in CUDA_VISIBLE_DEVICES, else the indices of all that
    nvidia-smi lists."""
    if VISIBLE not in environment:
        return [str(index) for index in range(len(_uuids()))]
    names = [name.strip() for name in environment[VISIBLE].split(",")]
    # as in CUDA: the first invalid name ends the list
    return names[: next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))]


def take_slot(gpus: Sequence[str], per_gpu: int, folder: Path) -> tuple[str, int]:
    """Wait for one of the `per_gpu` slots of each of `gpus`; takes it on the GPU with most free ones.

    Returns the GPU's name and the descriptor of the locked file, which the process must keep open.
    """
    uuids = _uuids()
    keys = {name: _key(name, uuids) for name in gpus}
    waited = False
    while True:
        chooser = _open(folder / "choosing")
        # so that other processes do not see slots as taken that are only probed
        fcntl.flock(chooser, fcntl.LOCK_EX)
        free = {name: _free(folder, key, per_gpu) for name, key in keys.items()}
        chosen = max(free, key=lambda name: len(free[name]))
        kept = free[chosen][:1]
        for descriptor in [chooser, *(slot for slots in free.values() for slot in slots)]:
            if descriptor not in kept:
                os.close(descriptor)
        if kept:
            return chosen, kept[0]
        if not waited:
            log.info("waiting for one of %d slots on %d GPUs", per_gpu * len(gpus), len(gpus))
            waited = True
        time.sleep(POLL_SECONDS)


def execute(command: Sequence[str], per_gpu: int) -> NoReturn:
    """Replace this process by `command`, with a slot and only its GPU visible; without a GPU as it is.

    It stays the same process, so signals reach it and its exit code is passed on.
    """
    environment = dict(os.environ)
    gpus = visible_gpus(environment)
    if gpus:
        name, descriptor = take_slot(gpus, per_gpu, _folder())
        os.set_inheritable(descriptor, True)
        log.info("on GPU %s", name)
        environment |= {VISIBLE: name, AT_ONCE: str(per_gpu)}
    os.execvpe(command[0], list(command), environment)


def _key(name: str, uuids: Sequence[str]) -> str:
    """What a GPU is called in every process: an index may name different ones in different jobs of a scheduler,
    and CUDA takes the begin of a UUID for all of it."""
    if name in map(str, range(len(uuids))):
        return uuids[int(name)]
    named = [uuid for uuid in uuids if uuid.startswith(name)]
    return named[0] if len(named) == 1 else name


def _free(folder: Path, key: str, per_gpu: int) -> list[int]:
    """Descriptors of the free slots of a GPU, which are locked now."""
    descriptors = []
    for index in range(per_gpu):
        descriptor = _open(folder / f"{key}.{index}")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            descriptors.append(descriptor)
    return descriptors


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _folder() -> Path:
    """The folder of slots, one per user of this machine."""
    folder = Path(tempfile.gettempdir(), f"haste-gpu-slots-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    # of a link its own owner: one of another user may lead anywhere
    if folder.lstat().st_uid != os.getuid():
        raise ConfigError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own.")
    return folder


def _uuids() -> list[str]:
    """UUIDs of the machine's GPUs, by index; none where nvidia-smi is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    result = subprocess.run(
        [program, "--query-gpu=uuid", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    # where there is none, some versions say so, and end well
    words = result.stdout.split() if result.returncode == 0 else []
    return [word for word in words if word.startswith("GPU-")]
