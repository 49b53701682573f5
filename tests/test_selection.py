from dataclasses import dataclass

import pytest

from haste.errors import ConfigError
from haste.selection import select


@dataclass(frozen=True)
class Thing:
    name: str


THINGS = [Thing("a/x/1"), Thing("a/y/2"), Thing("b/x/2")]


@pytest.mark.parametrize(
    ("only", "found"),
    [
        ([], [0, 1, 2]),
        (["x"], [0, 2]),
        (["a/*/2"], [1]),
        (["2", "a/x/*"], [0, 1, 2]),
        (["[bc]"], [2]),
    ],
)
def test_whole_names_and_parts(only, found):
    assert select(THINGS, only, "letter/letter/digit") == [THINGS[i] for i in found]


def test_what_names_nothing_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"--only z: no such thing. Use p/q/r, \* for any, or one of 1, 2, a, b, x, y\.",
    ):
        select(THINGS, ["x", "z"], "p/q/r", what="thing")


def test_an_item_counts_only_for_some_patterns():
    def counts(thing, pattern):
        return thing.name.startswith("a") or "b" in pattern

    assert select(THINGS, [], "f", counts=counts) == THINGS[:2]
    assert select(THINGS, ["x", "b/*"], "f", counts=counts) == [THINGS[0], THINGS[2]]
    with pytest.raises(ConfigError, match="--only c: no such row"):
        select(THINGS, ["c"], "f", counts=counts)
