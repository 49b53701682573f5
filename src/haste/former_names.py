"""What keys, columns and files were called before: earlier versions' files are read by their former names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from haste.errors import ConfigError

SETTINGS = {
    "encoder": {
        "recompute": "gradient_checkpointing",
    },
    "layer": {"run": "block_size"},
    "training": {"by_length": "group_by_length", "calibrate": "tune_tail_bias"},
}
"""section of a configuration -> former key -> key"""
REMOVED: dict[str, dict[str, Any]] = {
    "encoder": {
        "label_embeddings": "documents",
        "fused_optimizer": False,
        "optimizer_in_backward": False,
    },
    "training": {"label_texts": False},
}
"""section of a configuration -> key that there is no more -> the one value with which it is still read"""
GRID = {"only_finished": "allow_partial"}
"""keys of a grid that are in no section: former -> present"""
REMOVED_GRID = {"short_run_table": None, "shorter": None}
"""keys of a grid that there are no more -> the one value with which they are still read"""
COLUMNS = {
    "recompute": "gradient_checkpointing",
    "calls_a_step": "calls_per_step",
    "milliseconds_a_step": "milliseconds_per_step",
    "padded_tokens_a_step": "padded_tokens_per_step",
    "seconds_a_step": "seconds_per_step",
    "steps_an_epoch": "steps_per_epoch",
    "tokens_a_step": "tokens_per_step",
    "waits_a_step": "synchronizations_per_step",
    "tail_shift": "tail_bias_offset",
    "without_mirrored": "without_reciprocal_pairs",
    **{f"P@{k} without mirrored": f"P@{k} without reciprocal pairs" for k in (1, 3, 5)},
}
"""column of a csv, or key of a resources.json or metrics.json: former -> present"""
VALUES = {
    "layer": {"authors": "released_cuda"},
    "direction": {"grad_features": "dx", "grad_weight": "dw"},
}
"""column of a csv -> former value -> value"""
STATISTICS = {"mirrored": "reciprocal"}
"""key of `statistics` in corpus.json: former -> present"""
ENDINGS = {".mirrored.npz": ".reciprocal.npz"}
"""of a file's name: former -> present"""
TENSORS = {"slots": "indices"}
"""tensor of a layer: former -> present"""


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
    return _renamed(value, "config", GRID, REMOVED_GRID) if isinstance(value, Mapping) else value


def renamed_tensor(name: str) -> str:
    """The present name of a tensor of a model or checkpoint."""
    module, dot, last = name.rpartition(".")
    return f"{module}{dot}{TENSORS.get(last, last)}"


def renamed_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a csv, or resources.json or metrics.json, with the present names and values."""
    renamed = _with_names(row, COLUMNS)
    for column, values in VALUES.items():
        if isinstance(renamed.get(column), str):
            renamed[column] = values.get(renamed[column], renamed[column])
    return renamed


def renamed_statistics(description: Mapping[str, Any]) -> dict[str, Any]:
    """corpus.json with the present names of its statistics."""
    return _with_parts(description, "statistics", STATISTICS)


def as_first_written(description: Mapping[str, Any]) -> dict[str, Any]:
    """A description with the names that it had first, so that a digest of it stays what it was."""
    first = {new: old for old, new in STATISTICS.items()}
    files = {name: first_file_name(name) for name in description.get("digests") or ()}
    return _with_parts(_with_parts(description, "statistics", first), "digests", files)


def first_file_name(name: str) -> str:
    """What a file of this name was called first."""
    for old, new in ENDINGS.items():
        if name.endswith(new):
            return name.removesuffix(new) + old
    return name


def stored_path(path: Path) -> Path:
    """Where a file lies: under its former name where only that is there."""
    former = path.with_name(first_file_name(path.name))
    return former if former.exists() and not path.exists() else path


def _with_parts(value: Mapping[str, Any], key: str, names: Mapping[str, str]) -> dict[str, Any]:
    part = value.get(key)
    return {**value, key: _with_names(part, names)} if isinstance(part, Mapping) else dict(value)


def _with_names(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in row.items()}


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
