"""Settings classes on a small example: what is refused, where, and with which hint."""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated, Literal

import pytest
from pydantic import Field

from haste.errors import ConfigError
from haste.settings import (
    Bool,
    Float,
    Int,
    Name,
    PathText,
    SettingError,
    parse,
    settings,
)


@settings("cup")
class Cup:
    size: Annotated[Int, Field(ge=1, le=9)] = 3
    colour: Literal["red", "blue"] = "red"
    weight: Float = 0.5
    full: Bool = False

    def __post_init__(self) -> None:
        if self.full and self.size == 9:
            raise SettingError("size", "nobody can lift it")


@settings("shelf")
class Shelf:
    name: Name
    cups: tuple[Cup, ...] = ()
    best: Cup = field(default_factory=Cup)
    places: Mapping[Name, Cup] = field(default_factory=dict)
    path: PathText = "here"


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ({"name": "a", "best": {"size": 0}}, "shelf.best.size: 0 is not allowed"),
        ({"name": "a", "best": {"size": True}}, "shelf.best.size: True is not allowed"),
        ({"name": "a", "best": {"size": 2.5}}, "shelf.best.size: 2.5 is not allowed"),
        ({"name": "a", "best": {"weight": float("nan")}}, "shelf.best.weight: nan"),
        ({"name": "a", "best": {"weight": False}}, "shelf.best.weight: False is not allowed"),
        ({"name": "a", "best": {"full": 1}}, "shelf.best.full: 1 is not allowed"),
        ({"name": "a", "best": {"siez": 1}}, "unknown key 'siez'. Did you mean 'size'?"),
        (
            {"name": "a", "best": {"colour": "green"}},
            "'green' is not allowed",
        ),
        ({"name": "a", "best": 3}, "shelf.best: expected settings (key: value), got 3"),
        ({"name": "a", "cups": [{}, {"size": 10}]}, "shelf.cups[1].size: 10 is not allowed"),
        ({"name": "a", "places": {"up/": {}}}, "shelf.places: 'up/' is not a plain name"),
        (
            {"name": "a", "places": {"up": {"sise": 1}}},
            "shelf.places.up: unknown key 'sise'. Did you",
        ),
        ({"name": "a", "best": {"size": 9, "full": True}}, "shelf.best.size: nobody can lift it"),
        ({}, "shelf.name: missing"),
        (None, "shelf: expected settings"),
        ({"name": ".."}, "shelf.name: '..' is not a plain name"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(value, fact):
    with pytest.raises(ConfigError) as info:
        parse(Shelf, value, "shelf")
    assert fact in str(info.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as info:
        parse(Shelf, {"best": {"size": 0, "full": "no"}}, "shelf")
    assert len(str(info.value).splitlines()) == 3


def test_numbers_may_be_text_without_a_dot():
    assert parse(Cup, {"weight": "1e-3"}, "cup") == Cup(weight=0.001)


def test_values_are_checked_when_made_and_when_replaced():
    with pytest.raises(ConfigError, match=r"cup\.size: 0 is not allowed"):
        Cup(size=0)
    with pytest.raises(ConfigError, match=r"cup\.size: 12 is not allowed"):
        replace(Cup(), size=12)


def test_home_in_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/reader")
    assert Shelf("a", path="~/data").path == "/home/reader/data"
    assert Shelf("a", path="data~").path == "data~"
