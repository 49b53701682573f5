"""A layer whose labels are distributed over processes does what it does in one."""

import pytest
import sharded_checks

import ranks
from haste.distributed import Ranks
from haste.errors import ConfigError


@pytest.mark.parametrize("size", [2, 3])
def test_parts_of_a_layer_are_the_layer(tmp_path, size):
    names = list(sharded_checks.LAYERS)
    assert ranks.run("sharded_checks:main", names, size, tmp_path) == [0] * size


@pytest.mark.parametrize(("n", "unit", "size"), [(75, 16, 4), (100, 1, 7), (64, 16, 4)])
def test_every_label_is_on_one_rank_in_whole_groups(n, unit, size):
    parts = [Ranks(rank, size).split(n, unit, "it") for rank in range(size)]
    assert [row for part in parts for row in range(part.begin, part.end)] == list(range(n))
    assert all(part.begin % unit == 0 and len(part) for part in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 2 * unit


def test_what_cannot_be_distributed_is_refused():
    with pytest.raises(ConfigError, match="fewer"):
        Ranks(0, 6).split(75, 16, "it")
    sharded_checks.LAYERS["unstructured"] = {"layer": {"pattern": "unstructured", "fan_in": 16}}
    with pytest.raises(ConfigError, match="unstructured"):
        sharded_checks.build("unstructured", Ranks(0, 2))
