"""The methods and ablations that a grid can name: the rows of methods.yaml and ablations.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from haste.config import SECTIONS
from haste.errors import ConfigError, suggest
from haste.strict_yaml import parse_yaml


@dataclass(frozen=True)
class Method:
    """A row of presets/methods.yaml."""

    name: str
    title: str
    kind: str
    """trained (an OutputLayer), linear (haste baseline ...) or published (numbers from papers only)"""
    published_as: tuple[str, str] | None
    """(paper, method) in published.csv"""
    settings: Mapping[str, Mapping[str, Any]]
    note: str = ""
    """what the table must say of the row"""


@dataclass(frozen=True)
class Ablation:
    """A row of presets/ablations.yaml: variants of one method, each a delta on its preset."""

    name: str
    title: str
    method: str
    default: str
    """what the preset itself is called in the ablation's table"""
    question: str
    """that it asks, for the caption of its table"""
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def variant_name(self, value: str) -> str:
        """The variant's name in run paths."""
        return f"{self.name}-{value}"

    def variant_title(self, variant: str) -> str:
        """What tables call a variant, given its name in run paths: `default` is that of the preset."""
        prefix = f"{self.name}-"
        return (
            variant.removeprefix(prefix)
            if variant.startswith(prefix)
            else f"{self.default} (preset)"
        )


def method(name: str) -> Method:
    """A method of the preset table; raises ConfigError with the nearest name."""
    table = methods()
    if name not in table:
        raise ConfigError(f"methods: there is no method {name!r}.{suggest(name, table)}")
    return table[name]


def trained_method(name: str) -> Method:
    """A method that `haste.training` trains; raises ConfigError with the names of all where it is another."""
    chosen = method(name)
    if chosen.kind != "trained":
        trained = ", ".join(row.name for row in methods().values() if row.kind == "trained")
        raise ConfigError(f"method: {name!r} is not trained here; choose one of {trained}.")
    return chosen


def ablation(name: str) -> Ablation:
    """An ablation of the preset table; raises ConfigError with the nearest name."""
    table = ablations()
    if name not in table:
        raise ConfigError(f"ablations: there is no ablation {name!r}.{suggest(name, table)}")
    return table[name]


@cache
def methods() -> Mapping[str, Method]:
    """The preset table of methods, in the order of the paper's tables."""
    table = {}
    for name, row in _preset("methods").items():
        settings = {key: row[key] for key in SECTIONS if key in row}
        published = row.get("published_as")
        table[name] = Method(
            name=name,
            title=row["title"],
            kind=row.get("kind", "trained"),
            published_as=tuple(published) if published else None,
            settings=settings,
            note=row.get("note", ""),
        )
    return table


@cache
def ablations() -> Mapping[str, Ablation]:
    """The preset table of ablations."""
    return {name: Ablation(name=name, **row) for name, row in _preset("ablations").items()}


@cache
def head_pairs() -> tuple[tuple[str, str], ...]:
    """(without, with) of the trained methods that differ in their dense head alone."""
    rows = [row for row in methods().values() if row.kind == "trained"]
    bare = {}
    for row in rows:
        layer = {key: value for key, value in row.settings["layer"].items() if key != "head_ratio"}
        bare[row.name] = {**row.settings, "layer": layer}
    return tuple(
        (without.name, headed.name)
        for without in rows
        for headed in rows
        if "head_ratio" in headed.settings["layer"] and bare[headed.name] == without.settings
    )


def _preset(name: str) -> dict[str, Any]:
    text = resources.files("haste.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return parse_yaml(text, f"presets/{name}.yaml")
