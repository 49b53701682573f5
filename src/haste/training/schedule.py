"""When connections move, and step sizes over a run."""

from __future__ import annotations

import math

from haste.config import RewireConfig


def rewires_at(step: int, total_steps: int, config: RewireConfig) -> bool:
    """Whether connections move after step `step` (counted from 1)."""
    if config.growth == "none" or not (config.fraction or config.threshold):
        return False
    return step % config.interval == 0 and step <= config.until * total_steps


def learning_rate_factor(step: int, total_steps: int, warmup: float) -> float:
    """Factor of step `step` (from 0): linear warm-up over a share of the steps, then cosine to 0."""
    warm = round(warmup * total_steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total_steps - warm)))
