"""Products and training steps of sparse output layers; needs torch, triton and haste.errors only.

The public functions are in `api` and imported on first use, so that a configuration reads the allowed
sizes in `state` without importing torch. `topk` finds the best labels.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["dense_fused_step", "group_fused_step", "group_linear"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.api"), name)
