"""Every Triton kernel compiles for a Hopper GPU, also where there is none."""

import os
import re
import subprocess
import sys
from pathlib import Path

from haste.kernels import triton

HERE = Path(__file__).parent
KERNELS = Path(triton.__file__).parent


def test_every_kernel_compiles():
    found = subprocess.run(
        [sys.executable, HERE / "compile_kernels.py"],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    launched = {
        f"{path.stem}.{name}"
        for path in KERNELS.glob("*.py")
        for name in re.findall(r"^\s+(_\w+)\[", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(launched) > 10
    assert set(found.stdout.split()) == launched
