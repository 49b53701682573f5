"""Resources of a run: seconds and peak memory of each phase, and the machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from haste._version import __version__
from haste.commit import code_commit

PROC = Path("/proc/self")
AT_ONCE = "HASTE_RUNS_AT_ONCE"
"""environment variable: number of runs that share the device"""


class Meter:
    """Measures the phases of one run.

    Memory is the allocated peak on a GPU, and on a CPU the peak resident size of the whole process
    (interpreter and libraries included, about 0.4 GiB), reset at the start of each phase where the
    system allows it.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to phase `name`, and record its peak memory."""
        _reset_peak(self.device)
        start = time.perf_counter()
        try:
            yield
        finally:
            _synchronize(self.device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), peak_bytes(self.device))

    def resources(
        self,
        *,
        parameters: int | None,
        layer_bytes: int,
        state_bytes: int,
        steps: int,
        epoch_seconds: Sequence[float],
        threads: int,
        gradient_checkpointing: bool = False,
        tail_bias_offset: float | None = None,
    ) -> dict[str, Any]:
        """The content of resources.json; bytes are bytes, times are seconds.

        `parameters` is None where a library does not report it; `gradient_checkpointing`: whether
        the encoder's activations were computed twice to save memory; `tail_bias_offset`: the tuned offset
        of the tail's logits, or None.
        """
        seconds = dict(self.seconds)
        if epoch_seconds:
            seconds["epoch"] = statistics.median(epoch_seconds)
        return {
            "device": device_name(self.device),
            "machine": machine(),
            "threads": threads,
            "runs_at_once": int(os.environ.get(AT_ONCE, "1")),
            "gradient_checkpointing": gradient_checkpointing,
            **({} if tail_bias_offset is None else {"tail_bias_offset": tail_bias_offset}),
            "parameters": None if parameters is None else int(parameters),
            "layer_bytes": int(layer_bytes),
            "state_bytes": int(state_bytes),
            "peak_bytes": dict(self.peak_bytes),
            "seconds": seconds,
            "steps": int(steps),
            "completed": True,
        }


def peak_bytes(device: str) -> int:
    """Peak memory since the last reset: allocated on a GPU, resident on a CPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    status = PROC / "status"
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def device_name(device: str) -> str:
    """The GPU's name, or the CPU's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"CPU ({_cpu_name()})"


def machine() -> dict[str, str]:
    """Versions and hardware that measurements depend on; `commit` where it is known."""
    description = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": f"{_cpu_name()} x {os.cpu_count()}",
        "haste": __version__,
    }
    for package in ("torch", "triton", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            description[package] = importlib.metadata.version(package)
    commit = code_commit()
    if commit is not None:
        description["commit"] = commit
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name()
        description["cuda"] = str(torch.version.cuda)
    return description


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        (PROC / "clear_refs").write_text("5")


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
