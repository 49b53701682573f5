"""The GPU as a stopwatch: times and peak memory of calls, and what the device can do at best."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from haste.errors import KernelError
from haste.training.measure import machine

Call = Callable[[], object]
ROUNDS = 5
MOST_IN_A_ROUND = 20
FLUSH_BYTES = 256 << 20
"""written before each call, to empty the cache"""


@dataclass(frozen=True)
class Times:
    """Median and quartiles, in milliseconds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Times:
        """Of at least one sample."""
        if len(samples) == 1:
            return cls(*samples * 3)
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)


class Stopwatch(Protocol):
    """What the benchmark asks of a device."""

    device: torch.device

    def times(self, calls: Sequence[Call]) -> list[Times]:
        """Times of each, taken in turns."""
        ...

    def peak_bytes(self, call: Call) -> int:
        """The most that is allocated during a call beyond what was before."""
        ...

    def describe(self) -> dict[str, Any]:
        """The machine, as machine.json has it; must name device and copy_terabytes_per_second."""
        ...


class Gpu:
    """The first CUDA device.

    Calls are timed on the device, by events: the host is given a head start, so that its own work
    (about 0.1 ms a call) does not show where a kernel is shorter than that.
    """

    def __init__(self, rep: float = 30.0) -> None:
        """`rep`: milliseconds for each call in all. Raises KernelError where there is no CUDA GPU."""
        if not torch.cuda.is_available():
            raise KernelError(
                "the kernel benchmark needs a CUDA GPU, and this machine has none: times taken on a CPU "
                "say nothing about the kernels. Committed results are left as they are."
            )
        self.device = torch.device("cuda")
        self.rep = rep
        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=self.device)
        self._flush_ms = self._once(self._flush.zero_)[0]

    def times(self, calls: Sequence[Call]) -> list[Times]:
        """See Stopwatch. Calls have run before, so that nothing is compiled here."""
        costs = [self._once(call) for call in calls]
        samples: list[list[float]] = [[] for _ in calls]
        for _ in range(ROUNDS):
            for call, (total, host), own in zip(calls, costs, samples, strict=True):
                repeats = max(1, min(MOST_IN_A_ROUND, round(self.rep / ROUNDS / total)))
                own += self._round(call, repeats, host)
        return [Times.of(own) for own in samples]

    def peak_bytes(self, call: Call) -> int:
        """See Stopwatch. The first of two calls is not counted: libraries take workspaces in it."""
        call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def describe(self) -> dict[str, Any]:
        """See Stopwatch."""
        return {
            **machine(),
            "device": torch.cuda.get_device_name(self.device),
            "driver": _driver(),
            "copy_terabytes_per_second": self.copy_bandwidth(),
            "gemm_teraflops": self.gemm_rate(),
        }

    def copy_bandwidth(self) -> float:
        """TB/s, read and written, of copying 2 GiB."""
        source = torch.empty(2 << 30, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        found = self.times([lambda: target.copy_(source)])[0]
        return 2 * source.numel() / found.median / 1e9

    def gemm_rate(self) -> float:
        """TFLOP/s of a bf16 product of 8192 x 8192 random matrices."""
        n = 8192
        a, b = (torch.randn(n, n, dtype=torch.bfloat16, device=self.device) for _ in range(2))
        return 2 * n**3 / self.times([lambda: torch.mm(a, b)])[0].median / 1e9

    def _once(self, call: Call) -> tuple[float, float]:
        """Milliseconds of a call, in all and of the host, after two to warm up."""
        for _ in range(2):
            call()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        host = time.perf_counter() - begin
        torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - begin), 1e3 * host

    def _round(self, call: Call, repeats: int, host: float) -> list[float]:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for _ in range(min(500, round(1.5 * host * repeats / self._flush_ms))):
            self._flush.zero_()
        for begin, end in events:
            self._flush.zero_()
            begin.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) for begin, end in events]


def _driver() -> str | None:
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.split("\n")[0].strip() or None
