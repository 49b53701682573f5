"""What this machine has, and what will not run on it and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
DISK_NEEDED = 3 * GIB
"""what the default grid writes, with its data, rounded up"""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked for, what is there, and what follows when it is not."""

    what: str
    found: str
    ok: bool
    consequence: str = ""


PACKAGES = {
    "torch": "nothing trains; install it: pip install torch",
    "triton": "the Triton kernels do not run; the torch backend does",
    "torch-optimi": "nothing trains",
    "snakemake": "no pipeline; single stages run by hand with `haste`",
    "transformers": "the transformer encoder does not load; the bag encoder does",
    "faiss-cpu": "semantic and balanced grouping do not run",
    "omikuji": "the linear row of the main table is not made",
    "napkinxc": "metrics need it or xclib",
    "seaborn": "no figures",
}


def examine(folder: Path) -> Iterator[Finding]:
    """Look at interpreter, packages, GPU, metric library and the disk that `folder` is on."""
    version = platform.python_version_tuple()
    ok = ("3", "11") <= (version[0], version[1].zfill(2)) < ("3", "14")
    yield Finding("python", platform.python_version(), ok, "use Python 3.11 to 3.13")
    yield Finding("cores", str(os.cpu_count()), True)
    for package, consequence in PACKAGES.items():
        found = _version(package)
        yield Finding(package, found or "not installed", bool(found), consequence)
    yield _gpu()
    xclib = importlib.util.find_spec("xclib") is not None
    yield Finding(
        "xclib",
        "installed" if xclib else "not installed",
        xclib or _version("napkinxc") is not None,
        "metrics come from napkinxc" if _version("napkinxc") else "no metrics",
    )
    free = shutil.disk_usage(folder).free
    yield Finding(
        f"disk ({folder.resolve()})",
        f"{free / GIB:.1f} GiB free",
        free > DISK_NEEDED,
        f"the default grid writes up to {DISK_NEEDED // GIB} GiB",
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> Finding:
    consequence = (
        "grids run on the CPU with the torch backend; the benchmarks of kernels and scale need CUDA"
    )
    if _version("torch") is None:
        return Finding("GPU", "unknown without torch", False, consequence)
    import torch

    if not torch.cuda.is_available():
        reason = "torch is a CPU build" if torch.version.cuda is None else "no CUDA device"
        return Finding("GPU", f"none ({reason})", False, consequence)
    device = torch.cuda.get_device_properties(0)
    name = f"{torch.cuda.device_count()} x {device.name}, {device.total_memory / GIB:.0f} GiB"
    return Finding("GPU", name, True)
