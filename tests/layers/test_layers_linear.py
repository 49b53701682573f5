"""GroupFanInLinear in place of nn.Linear."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from haste.errors import KernelError
from haste.kernels import api
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
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    inputs, target = torch.randn(64, 8), (torch.rand(64, 20) < 0.2).float()
    losses = []
    for _ in range(20):
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
    assert layer.rewire(0.25, step=1) == 12
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
    layer.rewire(0.5, step=0)
    assert torch.equal(layer.index[0], before[0])
    assert (layer.index[1] != before[1]).any()


def test_half_precision_does_not_round_the_scores_of_connections():
    layer = GroupFanInLinear(64, 128, fan_in=16, group_size=128, dtype=torch.bfloat16)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        # one step of bf16 in one of 128 labels is far below one of their sum
        layer.weight[0, 9] = 1 - 2**-8
    before = layer.index.clone()
    assert layer.rewire(1 / 16, step=0) == 1
    assert (layer.index != before).nonzero().tolist() == [[0, 9]]


def test_takes_inputs_of_any_strides():
    layer = GroupFanInLinear(32, 20, 16, 16)
    inputs = torch.randn(32, 3)
    assert torch.equal(layer(inputs.t()), layer(inputs.t().contiguous()))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(8, 28), r"inputs: shape \[8, 28\] does not fit; expected \[\.\.\., 32\]"),
        (torch.zeros(()), r"inputs: shape \[\] does not fit; expected \[\.\.\., 32\]"),
        (torch.zeros(0, 28), r"inputs: shape \[0, 28\] does not fit; expected \[\.\.\., 32\]"),
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
        KernelError, match=f"fraction: {fraction!r} is not allowed; use an int or float from 0"
    ):
        layer.rewire(fraction, step=0)


def test_sizes_and_seeds_may_be_integers_of_numpy():
    sizes = 32, 20, 16, 16
    layer = GroupFanInLinear(*map(np.int64, sizes), seed=np.int64(3))
    other = GroupFanInLinear(*sizes, seed=3)
    assert layer.extra_repr() == other.extra_repr()
    assert torch.equal(layer.index, other.index)
    other.load_state_dict(layer.state_dict())
    assert layer.rewire(0.5, step=np.int64(1)) == other.rewire(0.5, step=1)
    assert torch.equal(layer.index, other.index)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_outputs_are_contiguous(backend, monkeypatch):
    monkeypatch.setattr(api, "choose_backend", lambda *_: backend)
    layer = GroupFanInLinear(32, 20, 16, 16)
    assert layer(torch.randn(2, 3, 32)).view(-1).shape == (120,)


def by_pickle(layer):
    return pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("copied", [lambda it: it, copy.deepcopy, by_pickle])
@pytest.mark.parametrize("assign", [True, False])
def test_a_pattern_of_more_inputs_is_not_loaded(assign, copied):
    layer, wider = GroupFanInLinear(32, 20, 16, 16), GroupFanInLinear(640, 20, 16, 16)
    layer = copied(layer)
    model = nn.Sequential(layer)
    before = layer.index.clone()
    values = {f"0.{name}": value for name, value in wider.state_dict().items()}
    with pytest.raises(KernelError, match=r"0\.index: values from .* leave the range 0 to 31"):
        model.load_state_dict(values, assign=assign)
    assert torch.equal(layer.index, before)


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


def gradients(layer, inputs):
    """Of the inputs, and of all parameters, for a sum that tells outputs apart."""
    inputs = inputs.detach().requires_grad_()
    outputs = layer(inputs)
    scale = torch.linspace(-1, 1, outputs.numel()).view(outputs.shape)
    return torch.autograd.grad((outputs * scale).sum(), [inputs, *layer.parameters()])


@pytest.mark.parametrize("shape", [(0, 32), (2, 0, 32)])
def test_an_empty_batch_has_no_outputs_and_gradients_of_zero(shape):
    layer = GroupFanInLinear(32, 20, 16, 16)
    inputs = torch.zeros(shape)
    assert layer(inputs).shape == (*shape[:-1], 20)
    given, *trained = gradients(layer, inputs)
    assert given.shape == shape
    assert not any(gradient.any() for gradient in trained)


def test_first_tokens_of_a_transformer_are_inputs_as_they_are():
    layer = GroupFanInLinear(32, 20, 16, 16)
    hidden = torch.randn(4, 7, 32)
    outside, within = layer(hidden[:, 0].contiguous()), layer(hidden[:, 0])
    assert torch.equal(outside, within)


def test_follows_autocast():
    layer = GroupFanInLinear(32, 20, 16, 16)
    inputs = torch.randn(4, 32)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(inputs)
    assert outputs.dtype == torch.bfloat16
    assert torch.allclose(outputs.float(), layer(inputs), atol=0.05)
    outputs.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_is_made_on_the_meta_device_and_drawn_later():
    late = GroupFanInLinear(32, 20, 16, 16, device="meta", seed=3)
    assert late(torch.empty(5, 32, device="meta")).shape == (5, 20)
    late.to_empty(device="cpu").reset_parameters()
    assert torch.equal(late.index, GroupFanInLinear(32, 20, 16, 16, seed=3).index)
    assert late.weight.abs().max() <= 16**-0.5
    assert not late.bias.any()


def test_compiled_sums_of_a_bias_do_not_overflow():
    layer = GroupFanInLinear(32, 20, 16, 16)
    inputs = torch.randn(64, 32, dtype=torch.float16)
    for module in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        outputs = module(inputs)
        (gradient,) = torch.autograd.grad(outputs, layer.bias, torch.full_like(outputs, 2000))
        assert (gradient == 64 * 2000).all()


@pytest.mark.parametrize("bias", [True, False])
def test_compiles_once_for_all_batches(bias):
    layer = GroupFanInLinear(32, 20, 16, 16, bias=bias)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    for batch in (2, 3, 9):
        inputs = torch.randn(batch, 32)
        for found, wanted in zip(
            gradients(compiled, inputs), gradients(layer, inputs), strict=True
        ):
            assert torch.allclose(found, wanted, atol=1e-5)
    assert counter.frame_count == 1


def test_an_exported_program_takes_any_batch_and_needs_torch_alone():
    layer = GroupFanInLinear(32, 20, 16, 16)
    batch = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(layer, (torch.randn(2, 32),), dynamic_shapes=batch)
    for inputs in (torch.randn(3, 32), torch.randn(9, 32)):
        assert torch.allclose(program.module()(inputs), layer(inputs), atol=1e-5)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert all(name.startswith("aten.") for name in called if "." in name)


def test_rewirings_of_other_steps_draw_other_inputs():
    layer = GroupFanInLinear(256, 16, fan_in=16, group_size=16)
    seen = set()
    for step in range(20):
        layer.rewire(0.5, step=step)
        seen |= set(layer.index[0].tolist())
    assert len(seen) > 100


def test_what_an_optimiser_knows_of_moved_connections_is_forgotten():
    layer = GroupFanInLinear(64, 40, fan_in=16, group_size=16)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.randn(8, 64)).square().sum().backward()
    optimizer.step()
    before = layer.index.clone()
    layer.rewire(0.25, step=0, optimizer=optimizer)
    moved = (layer.index != before).repeat_interleave(16, dim=0)[:40]
    assert moved.any()
    for name in ("exp_avg", "exp_avg_sq"):
        values = optimizer.state[layer.weight][name]
        assert not values[moved].any()
        assert values[~moved].all()
