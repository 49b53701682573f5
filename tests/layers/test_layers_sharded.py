"""A layer whose labels are distributed over processes does what it does in one."""

from dataclasses import replace

import pytest
import sharded_checks
import torch
from test_layers_steps import OPTIONS, B, F, G, H, batch, seeded

import ranks
from haste.distributed import ALONE, Ranks
from haste.errors import ConfigError
from haste.kernels.state import StepContext
from haste.layers.dense import Dense
from haste.layers.sharded import Shard
from haste.layers.sparse import Sparse


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


BF16 = replace(OPTIONS, dtype=torch.bfloat16, backend="triton")
LAYERS = {
    "dense": lambda ranks: Dense(H, 53, BF16, seeded(), ranks=ranks),
    "fixed": lambda ranks: Sparse(H, 53, F, BF16, seeded(), ranks=ranks),
    "group": lambda ranks: Sparse(H, 53, F, BF16, seeded(), group_size=G, ranks=ranks),
}


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_round_a_row_alike_on_any_rank(name):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        pytest.skip("generators of layers are of the CPU here")
    whole, parts = LAYERS[name](ALONE), [LAYERS[name](Ranks(rank, 3)) for rank in range(3)]
    for step in range(2):
        features, positives, _ = batch(step)
        features = features.bfloat16()
        context = StepContext(0.05, 7, step)
        want = whole.step(features, positives, context)
        results = [Shard(part).step(features, positives, context) for part in parts]
        assert torch.allclose(sum(result.loss for result in results), want.loss, rtol=1e-5)
        dx = sum(result.dx for result in results)
        assert dx.shape == (B, H)
        assert torch.allclose(dx, want.dx, rtol=1e-2, atol=1e-2)
    for part in parts:
        for key, value in part.state_dict().items():
            rows = part.row_range(key)
            assert torch.equal(value, whole.state_dict()[key][rows.begin : rows.end]), key
