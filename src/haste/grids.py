"""A grid's configuration from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from haste.config import GridConfig
from haste.errors import ConfigError
from haste.files import read_yaml


def read_grid(paths: Sequence[Path]) -> GridConfig:
    """The grid of one file, or of several laid one over the other, as Snakemake's --configfile does it:
    mappings key by key, anything else is replaced.

    Raises DataError for a file that is missing or damaged, ConfigError for what is wrong in it.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        found = read_yaml(path)
        if not isinstance(found, Mapping):
            raise ConfigError(
                f"{path}: no configuration in it; expected settings (key: value), like config.yaml."
            )
        merged = _laid_over(merged, found)
    return GridConfig.from_dict(merged)


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = _laid_over(found[key], value) if both else value
    return found
