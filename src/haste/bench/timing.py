"""Times and peak memory of calls on a GPU, and the device's bandwidth and matrix throughput."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from triton.testing import do_bench

from haste.errors import KernelError
from haste.resources import machine

Call = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Median and quartiles, in milliseconds."""

    median: float
    low: float
    high: float


class Gpu:
    """The first CUDA device. Its cache is emptied before each call that is timed."""

    def __init__(self, rep: float = 30.0) -> None:
        """`rep`: milliseconds of timing per call. Raises KernelError where there is no CUDA GPU."""
        if not torch.cuda.is_available():
            raise KernelError(
                "the kernel benchmark needs a CUDA GPU, and this machine has none: times taken on a CPU "
                "say nothing about the kernels. Committed results are left as they are."
            )
        self.device = torch.device("cuda")
        self.rep = rep

    def times(self, call: Call, *, captured: bool = True) -> Times:
        """Of a call, which is captured in a CUDA graph where possible, as in training: otherwise the work
        of the host (about 0.1 ms) would dominate short kernels. Not `captured`: as it is, because a graph would
        lack what the call launches on other streams."""
        timed = _replayed(call) if captured else call
        low, median, high = do_bench(timed, rep=self.rep, quantiles=(0.25, 0.5, 0.75))
        return Times(median, low, high)

    def peak_bytes(self, call: Call) -> int:
        """Peak of the bytes that a call allocates, the second of two: in the first, libraries allocate
        workspaces."""
        call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def describe(self) -> dict[str, Any]:
        """The content of machine.json."""
        return {
            **machine(),
            "device": torch.cuda.get_device_name(self.device),
            "driver": _driver(),
            "copy_terabytes_per_second": self.copy_bandwidth(),
            "gemm_teraflops": self.gemm_rate(),
        }

    def copy_bandwidth(self) -> float:
        """TB/s read and written when copying 2 GiB."""
        source = torch.empty(2 << 30, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.numel() / self.times(lambda: target.copy_(source)).median / 1e9

    def gemm_rate(self) -> float:
        """TFLOP/s of a bf16 product of 8192 x 8192 random matrices."""
        n = 8192
        a, b = (torch.randn(n, n, dtype=torch.bfloat16, device=self.device) for _ in range(2))
        return 2 * n**3 / self.times(lambda: torch.mm(a, b)).median / 1e9


def _replayed(call: Call) -> Call:
    """The call as the replay of a CUDA graph, or unchanged where it cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    try:
        with torch.cuda.graph(graph, stream=stream):
            call()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        torch.cuda.synchronize()
        return call
    return graph.replay


def _driver() -> str | None:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip() or None
