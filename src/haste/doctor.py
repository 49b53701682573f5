"""Checks what this machine has, and what will not run on it and why."""

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
"""bytes of the default grid's data and results, rounded up"""


@dataclass(frozen=True)
class CheckResult:
    """One line of the report: what was checked, the result, and the consequence if it is not ok."""

    what: str
    state: str
    ok: bool
    consequence: str = ""
    optional: bool = False
    """nobody has to have it"""
    wrong: bool = False
    """a kernel gives wrong values or does not run: nothing should be trained with it"""


NEEDED = ("torch", "torch-optimi")
"""of PACKAGES; the others are for what their line says"""
PACKAGES = {
    "torch": "nothing trains; install it: pip install torch",
    "triton": "the Triton kernels do not run; the torch backend does",
    "torch-optimi": "nothing trains",
    "snakemake": "no pipeline; single stages run by hand with `haste`",
    "transformers": "the transformer encoder does not load; the bag encoder does",
    "faiss-cpu": "semantic and balanced grouping do not run",
    "omikuji": "the linear row of the main table is not made",
    "seaborn": "no figures",
}

REMEDY = "update Triton and check again; if it stays, report it"
BACKEND = f"with training.backend: torch; {REMEDY}"
KERNELS = {
    "packed": f"train and use transformer encoders only with encoder.attention: torch; {REMEDY}",
    "group": f"train and use layers of patterns group_fan_in and block_sparse only {BACKEND}",
    "fixed_fan_in": f"train and use layers of pattern fixed_fan_in only {BACKEND}",
    "dense": "train and use layers of patterns dense and bottleneck, and all with a head or an "
    f"auxiliary loss, only {BACKEND}",
    "dropout": f"train layers with layer.dropout only {BACKEND}",
    "topk": "do not trust predictions or metrics made on this GPU; update torch and check again; "
    "if it stays, report it",
}
"""family of kernels of `haste.bench.check` -> consequence of a wrong one"""


def examine(folder: Path, *, kernels: bool = False) -> Iterator[CheckResult]:
    """Check interpreter, packages, GPU, metric library and the disk of `folder`.

    With `kernels` also run them on the GPU and compare their results; see `haste.bench.check`.
    """
    major, minor, _ = platform.python_version_tuple()
    ok = ("3", "11") <= (major, minor.zfill(2)) < ("3", "14")
    yield CheckResult("python", platform.python_version(), ok, "use Python 3.11 to 3.13")
    yield CheckResult("cores", str(os.cpu_count()), True)
    for package, consequence in PACKAGES.items():
        version = _version(package)
        state = version or "not installed"
        optional = package not in NEEDED
        yield CheckResult(package, state, bool(version), consequence, optional=optional)
    yield _gpu()
    xclib = importlib.util.find_spec("xclib") is not None
    yield CheckResult(
        "xclib", "installed" if xclib else "not installed: haste measures itself", True
    )
    free = shutil.disk_usage(folder).free
    yield CheckResult(
        f"disk ({folder.resolve()})",
        f"{free / GIB:.1f} GiB free",
        free > DISK_NEEDED,
        f"the default grid writes up to {DISK_NEEDED // GIB} GiB",
    )
    if kernels:
        yield from _kernels()
    elif _why_no_gpu() is None:
        yield CheckResult("kernels", "not checked; haste doctor --kernels checks them", True)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _why_no_gpu() -> str | None:
    """Why there is no GPU; None where there is one."""
    if _version("torch") is None:
        return "unknown without torch"
    import torch

    if torch.cuda.is_available():
        return None
    reason = "torch is a CPU build" if torch.version.cuda is None else "no CUDA device"
    return f"none ({reason})"


def _gpu() -> CheckResult:
    missing = _why_no_gpu()
    if missing:
        consequence = (
            "grids run on the CPU with the torch backend; "
            "the benchmarks of kernels and scale need CUDA"
        )
        return CheckResult("GPU", missing, False, consequence, optional=True)
    import torch

    device = torch.cuda.get_device_properties(0)
    name = f"{torch.cuda.device_count()} x {device.name}, {device.total_memory / GIB:.0f} GiB"
    return CheckResult("GPU", name, True)


def _kernels() -> Iterator[CheckResult]:
    """The check of each kernel on the GPU."""
    missing = _why_no_gpu()
    if missing:
        state = f"not checked; GPU: {missing}"
        yield CheckResult("kernels", state, False, "check them where they are to run")
        return
    if _version("triton") is None:
        yield CheckResult("kernels", "not checked without triton", False, PACKAGES["triton"])
        return
    if os.environ.get("TRITON_INTERPRET") == "1":
        # the interpreter does not run what the compiler makes
        state = "not checked: with TRITON_INTERPRET=1 nothing is compiled"
        yield CheckResult("kernels", state, False, "unset TRITON_INTERPRET and check again")
        return
    from haste.bench.check import checks

    for check in checks("cuda"):
        state = f"does not run: {check.failure}"
        if check.judgement is not None:
            result = check.judgement
            state = f"{result.result}: error {result.error:.1e}, at most {result.bound:.1e}"
        ok = check.passed
        yield CheckResult(f"kernel: {check.what}", state, ok, KERNELS[check.family], wrong=not ok)
