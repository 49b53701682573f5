"""Several processes as torchrun would start them, on this machine alone."""

import os
import socket
import sys
import time
from pathlib import Path

import forked
from haste.distributed import launched


def start(main: str, arguments: list[str], size: int, folder: Path) -> list:
    """Start "module:function" with `arguments` in `size` processes; their output goes to FOLDER/rank<i>.txt."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    return [
        forked.start(
            main,
            arguments,
            folder / f"rank{rank}.txt",
            {
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo",
                "NCCL_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
            },
            Path.cwd(),
        )
        for rank in range(size)
    ]


def finish(processes: list, folder: Path, timeout: float = 120) -> list[int]:
    """Exit codes of the processes; when one fails, the others are ended, as torchrun does."""
    end = time.monotonic() + timeout
    while any(process.is_alive() for process in processes):
        failed = any(process.exitcode for process in processes)
        if failed or time.monotonic() > end:
            for process in processes:
                process.join(1)
                process.kill()
        processes[0].join(0.05)
        processes[-1].join(0.05)
    codes = [process.exitcode for process in processes]
    if any(codes):
        for rank in range(len(processes)):
            sys.stdout.write((folder / f"rank{rank}.txt").read_text())
    return codes


def run(main: str, arguments: list[str], size: int, folder: Path) -> list[int]:
    """Exit codes of `size` processes of "module:function"."""
    return finish(start(main, arguments, size, folder), folder)


def call(check) -> None:
    """In each process: call `check` with its ranks."""
    with launched("cpu") as ranks:
        check(ranks)
