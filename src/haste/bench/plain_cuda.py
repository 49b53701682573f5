"""A plain CUDA fixed fan-in as rows of the benchmark: the paper's kind of baseline for its claims C1 and C2.

Its kernels are those of github.com/xmc-aalto/ecml23-sparse: one thread gathers for a label and a document, dX is
summed by atomics, all in fp32. The environment variable HASTE_ECML23 names a clone, from which nvcc builds a library
for this machine's GPU.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from haste.errors import KernelError

if TYPE_CHECKING:
    from haste.bench.problems import Part

CLONE = "HASTE_ECML23"
_GSL = """#pragma once
#define gsl_Expects(condition) ((void)0)
#define gsl_Ensures(condition) ((void)0)
#define gsl_ExpectsAudit(condition) ((void)0)
#define gsl_AssertAudit(condition) ((void)0)
#define gsl_FailFast() abort()
"""
"""what its headers need of gsl-lite: checks, which a release build leaves out"""


def installed() -> bool:
    """Whether a clone is named."""
    return CLONE in os.environ


def products(
    part: Part, x: Tensor, dz: Tensor, *, transposed: bool
) -> dict[str, Callable[[], Tensor]]:
    """Its products for a fixed fan-in part, without bias, in fp32: out [B, L], dx [B, H] and dw [L, F].

    `transposed`: by the kernels for features [H, B], which are given as they want them.
    """
    library, index = _library(), part.sparse_index
    columns = (x.t() if transposed else x).float().contiguous()
    weight, wide = part.weight.float(), dz.float().contiguous()
    batch, n_labels, fan_in = len(x), *weight.shape
    out = torch.empty(batch, n_labels, device=x.device)
    dx, dw = torch.empty_like(columns), torch.empty_like(weight)
    sizes = (batch, x.shape[1], n_labels, fan_in)

    def pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
        return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]

    def forward() -> Tensor:
        library.fixed_forward(
            *pointers(columns, index, weight, out), *sizes, int(transposed), _stream(x.device)
        )
        return out

    def gradient(function: str, result: Tensor) -> Tensor:
        arguments = pointers(columns, index, weight, wide, dx, dw)
        getattr(library, function)(*arguments, *sizes, _stream(x.device), int(transposed))
        return result

    return {
        "out": forward,
        "dx": lambda: gradient("fixed_dx", dx.t() if transposed else dx),
        "dw": lambda: gradient("fixed_dw", dw),
    }


def _stream(device: torch.device) -> ctypes.c_void_p:
    return ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)


@functools.cache
def _library() -> ctypes.CDLL:
    """The library, built by nvcc. Raises KernelError where that fails."""
    source = Path(__file__).with_suffix(".cu")
    headers = Path(os.environ[CLONE]) / "tfsparse" / "cc" / "kernels"
    nvcc = shutil.which("nvcc")
    if nvcc is None or not headers.is_dir():
        missing = "nvcc is not on the PATH" if nvcc is None else f"{headers} is not there"
        raise KernelError(
            f"{CLONE}: {missing}; the plain CUDA fixed fan-in is built from a clone by nvcc."
        )
    major, minor = torch.cuda.get_device_capability()
    with tempfile.TemporaryDirectory() as folder:
        stub = Path(folder) / "gsl"
        stub.mkdir()
        (stub / "gsl-lite.hpp").write_text(_GSL)
        built = Path(folder) / "plain_cuda.so"
        command = [
            nvcc, "-O3", "-std=c++17", "--expt-relaxed-constexpr", f"-arch=sm_{major}{minor}", "-shared",
            "-Xcompiler", "-fPIC", "-include", "cstdlib", "-include", "type_traits", "-include", "tuple",
            f"-I{folder}", f"-I{headers}", "-o", str(built), str(source),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            raise KernelError(f"{CLONE}: nvcc failed: {done.stderr.strip()[-2000:]}")
        return ctypes.CDLL(str(built))
