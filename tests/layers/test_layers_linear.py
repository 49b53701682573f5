"""GroupFanInLinear in place of nn.Linear."""

import pytest
import torch
from torch import nn

from haste.errors import KernelError
from haste.kernels.reference import dense_weight
from haste.layers import GroupFanInLinear


def test_is_a_linear_map_of_its_group_inputs():
    layer = GroupFanInLinear(48, 40, fan_in=16, group_size=16)
    inputs = torch.randn(2, 3, 48)
    dense = dense_weight(layer.weight, layer.index, 48, 16)
    want = nn.functional.linear(inputs, dense, layer.bias)
    assert torch.allclose(layer(inputs), want, atol=1e-5)
    assert layer(inputs).shape == (2, 3, 40)
    rows = layer.index.sort(dim=1).values
    assert (rows[:, 1:] > rows[:, :-1]).all(), "a group names no input twice"


def test_trains_with_any_optimiser_in_any_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), GroupFanInLinear(32, 20, 16, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    inputs, target = torch.randn(64, 8), (torch.rand(64, 20) < 0.2).float()
    losses = []
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_rewiring_moves_the_weakest_connections():
    layer = GroupFanInLinear(64, 40, fan_in=16, group_size=16)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(16.0).expand(40, 16) + 1)
    before, kept = layer.index.clone(), layer.weight[:, 4:].clone()
    assert layer.rewire(0.25, seed=1) == 12
    assert torch.equal(layer.index[:, 4:], before[:, 4:])
    assert (layer.index[:, :4] != before[:, :4]).any()
    assert not layer.weight[:, :4].any()
    assert torch.equal(layer.weight[:, 4:], kept)
    rows = layer.index.sort(dim=1).values
    assert (rows[:, 1:] > rows[:, :-1]).all()


def test_a_short_last_group_is_scored_by_its_own_labels():
    layer = GroupFanInLinear(64, 18, fan_in=16, group_size=16)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.weight[16:, :] = 1.0
    before = layer.index.clone()
    layer.rewire(0.5, seed=0)
    assert torch.equal(layer.index[0], before[0])
    assert (layer.index[1] != before[1]).any()


def test_takes_inputs_of_any_strides():
    layer = GroupFanInLinear(32, 20, 16, 16)
    inputs = torch.randn(32, 3)
    assert torch.equal(layer(inputs.t()), layer(inputs.t().contiguous()))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(8, 28), r"inputs: shape \[8, 28\] does not fit; expected \[\.\.\., 32\]"),
        (torch.zeros(()), r"inputs: shape \[\] does not fit; expected \[\.\.\., 32\]"),
        (torch.zeros(0, 32), r"inputs: shape \[0, 32\] does not fit"),
        (torch.zeros(8, 32).double(), r"inputs: dtype: .*float64 is not allowed; use .*float32"),
        (torch.zeros(8, 32).int(), r"inputs: dtype: .*int32 is not allowed"),
        (torch.zeros(8, 32, device="meta"), "inputs: is on meta, but the layer is on cpu"),
        ([0.0], "inputs: expected a tensor, got list"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, message):
    with pytest.raises(KernelError, match=message):
        GroupFanInLinear(32, 20, 16, 16)(inputs)


@pytest.mark.parametrize("fraction", [2.0, -1, float("nan"), "all"])
def test_a_share_that_is_none_is_refused(fraction):
    layer = GroupFanInLinear(32, 20, 16, 16)
    with pytest.raises(
        KernelError, match=f"fraction: {fraction} is not allowed; use a number from 0"
    ):
        layer.rewire(fraction, seed=0)


def test_saves_and_loads_its_pattern():
    layer, other = (GroupFanInLinear(32, 20, 16, 16, seed=seed) for seed in (0, 1))
    other.load_state_dict(layer.state_dict())
    inputs = torch.randn(3, 32)
    assert torch.equal(layer(inputs), other(inputs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fan_in": 20}, "fan_in: 20 is not allowed; use one of 16, 32"),
        ({"fan_in": 16, "group_size": 8}, "group_size: 8 is not allowed"),
        ({"fan_in": 64}, "fan-in: 64 indices do not fit in 32 choices"),
        ({"fan_in": 16, "dtype": torch.int32}, "dtype: .*int32 is not allowed; use .*float32"),
        ({"fan_in": 16, "out_features": 0}, "out_features: 0 is not allowed"),
    ],
)
def test_what_has_no_kernel_is_refused(options, message):
    with pytest.raises(KernelError, match=message):
        GroupFanInLinear(32, **{"out_features": 40, **options})
