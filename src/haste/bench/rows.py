"""How the rows of a benchmark are written, and the folder of a device."""

from __future__ import annotations

import re
from collections.abc import Mapping


def rounded(row: Mapping[str, object]) -> dict[str, object]:
    """A row with its fractions to five digits."""
    return {
        name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()
    }


def slug(device: str) -> str:
    """The name of a device's folder: NVIDIA H200 is nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
