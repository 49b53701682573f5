"""What keys and columns were called before: files of earlier versions are read by their former names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SETTINGS = {
    "encoder": {
        "recompute": "gradient_checkpointing",
        "fused_optimizer": "optimizer_in_backward",
    },
    "layer": {"run": "block_size"},
    "training": {
        "by_length": "group_by_length",
        "calibrate": "tune_tail_bias",
        "label_texts": "augment_with_label_text",
    },
}
"""section of a configuration -> former key -> key"""
COLUMNS = {
    "recompute": "gradient_checkpointing",
    "seconds_a_step": "seconds_per_step",
    "tail_shift": "tail_bias_offset",
}
"""column of a csv, or key of a resources.json: former -> present"""


def renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a csv, or resources.json, with the present names."""
    return {COLUMNS.get(key, key): value for key, value in row.items()}
