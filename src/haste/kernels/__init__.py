"""Products and training steps of sparse output layers, a package of its own: torch, triton, haste.errors.

`api` has the public functions, which are looked up when they are used: so a configuration reads the
allowed sizes in `state` without importing torch. `topk` finds the best labels.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["dense_fused_step", "group_fused_step", "group_linear"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.api"), name)
