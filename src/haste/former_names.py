"""What keys and columns were called before: files of earlier versions are read by their former names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haste.errors import ConfigError

SETTINGS = {
    "encoder": {
        "recompute": "gradient_checkpointing",
        "fused_optimizer": "optimizer_in_backward",
    },
    "layer": {"run": "block_size"},
    "training": {"by_length": "group_by_length", "calibrate": "tune_tail_bias"},
}
"""section of a configuration -> former key -> key"""
REMOVED = {
    "encoder": {"label_embeddings": "documents"},
    "training": {"label_texts": False},
}
"""section of a configuration -> key that there is no more -> the one value with which it is still read"""
GRID = {"shorter": "short_run_table", "only_finished": "allow_partial"}
"""keys of a grid that are in no section: former -> present"""
COLUMNS = {
    "recompute": "gradient_checkpointing",
    "seconds_a_step": "seconds_per_step",
    "tail_shift": "tail_bias_offset",
}
"""column of a csv, or key of a resources.json: former -> present"""


def renamed_settings(value: Any) -> Any:
    """Settings of a run or grid with the present names of keys, in its sections at any depth.

    Raises ConfigError where a section has both names of a key, or a removed key with another value than
    the one that stands for what is still done.
    """
    if not isinstance(value, Mapping):
        return value
    result = {}
    for key, part in value.items():
        part = renamed_settings(part)
        if key in SETTINGS and isinstance(part, Mapping):
            part = _renamed(part, str(key), SETTINGS[key], REMOVED.get(key, {}))
        result[key] = part
    return result


def renamed_grid(value: Any) -> Any:
    """A grid with the present names of keys, in its sections and outside them; errors as `renamed_settings`."""
    value = renamed_settings(value)
    return _renamed(value, "config", GRID, {}) if isinstance(value, Mapping) else value


def renamed_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a csv, or resources.json, with the present names."""
    return {COLUMNS.get(key, key): value for key, value in row.items()}


def _renamed(
    section: Mapping[str, Any], where: str, names: Mapping[str, str], removed: Mapping[str, Any]
) -> dict[str, Any]:
    for old, new in names.items():
        if old in section and new in section:
            raise ConfigError(
                f"{where}: {old!r} is the former name of {new!r}; keep one of the two."
            )
    for key, kept in removed.items():
        if section.get(key, kept) != kept:
            raise ConfigError(
                f"{where}.{key}: {section[key]!r} is no longer there; remove the key."
            )
    return {names.get(key, key): value for key, value in section.items() if key not in removed}
