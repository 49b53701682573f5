"""Products and training steps of sparse output layers, a package of its own: torch, triton, haste.errors.

`api` has what is public; its names are looked up here when they are used, so that a configuration reads
the allowed sizes in `state` without importing torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "block_sparse_linear",
    "dense_fused_step",
    "fixed_fan_in_fused_step",
    "fixed_fan_in_linear",
    "group_fused_step",
    "group_linear",
    "topk",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(
        importlib.import_module(f"{__name__}.{'topk' if name == 'topk' else 'api'}"), name
    )
