"""The device that a run or a prediction computes on."""

from __future__ import annotations

import torch

from haste.config import DEVICES
from haste.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device of `auto`, `cpu` or `cuda`; raises ConfigError for another name, or for cuda without a GPU."""
    if name not in DEVICES:
        raise ConfigError(f"device: {name!r} is not allowed; choose one of {', '.join(DEVICES)}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device: cuda, but torch sees no CUDA GPU; use auto or cpu, or run `haste doctor`."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
