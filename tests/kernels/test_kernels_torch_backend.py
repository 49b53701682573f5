"""The torch backend against the naive reference in fp64."""

import pytest
import torch

from haste.kernels import reference, torch_backend
from haste.kernels.state import LayerState, Positives, Sgd

SGD = Sgd(momentum=0.9, weight_decay=1e-2)
LR = 0.05


def problem(batch, n_features, n_labels, fan_in, group_size, seed=0, repeated=False):
    random = torch.Generator().manual_seed(seed)
    units = -(-n_labels // group_size)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    if repeated:
        index = torch.randint(n_features, (units, fan_in), generator=random)
    else:
        index = torch.rand(units, n_features, generator=random).topk(fan_in).indices
    target = torch.rand(n_labels, batch, generator=random) < 0.1
    label, row = target.nonzero(as_tuple=True)
    return {
        "features": normal(batch, n_features),
        "weight": normal(n_labels, fan_in),
        "index": index.int(),
        "bias": normal(n_labels),
        "momentum": normal(n_labels, fan_in),
        "bias_momentum": normal(n_labels),
        "positives": Positives(label.int(), row.int()),
    }


def state_of(p):
    return LayerState(p["weight"], p["bias"], p["momentum"], p["bias_momentum"])


def expected(p, group_size, index=None):
    return reference.fused_step(
        p["features"],
        p["weight"],
        p["index"] if index is None else index,
        p["bias"],
        p["momentum"],
        p["bias_momentum"],
        p["positives"].label_row,
        p["positives"].doc,
        group_size=group_size,
        lr=LR,
        momentum_factor=SGD.momentum,
        weight_decay=SGD.weight_decay,
    )


def single(p):
    return {
        k: v.float().clone() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in p.items()
    }


def agrees(p, result, want):
    loss, grad = result
    assert torch.allclose(loss.double(), want["loss"], rtol=1e-5)
    assert torch.allclose(grad.double(), want["dx"], rtol=1e-4, atol=1e-4)
    for name in ("weight", "bias", "momentum", "bias_momentum"):
        assert torch.allclose(p[name].double(), want[name], rtol=1e-4, atol=1e-5), name


SHAPES = [
    (1, 48, 40, 16, 16),
    (3, 96, 33, 32, 16),
    (7, 64, 16, 64, 16),
    (5, 40, 5, 16, 16),
    (64, 96, 130, 32, 64),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("tile_bytes", [64 << 20, 4096])
def test_group_step(shape, repeated, tile_bytes, monkeypatch):
    monkeypatch.setattr(torch_backend, "TILE_BYTES", tile_bytes)
    p = problem(*shape, repeated=repeated)
    want = expected(p, shape[4])
    own = single(p)
    result = torch_backend.sparse_step(
        own["features"],
        state_of(own),
        own["index"],
        own["positives"],
        group_size=shape[4],
        lr=LR,
        sgd=SGD,
        random=None,
        loss_dtype=torch.float32,
    )
    agrees(own, result, want)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tile_bytes", [64 << 20, 4096])
def test_fixed_fan_in_step(shape, tile_bytes, monkeypatch):
    monkeypatch.setattr(torch_backend, "TILE_BYTES", tile_bytes)
    p = problem(*shape[:4], 1)
    want = expected(p, 1)
    own = single(p)
    result = torch_backend.sparse_step(
        own["features"],
        state_of(own),
        own["index"],
        own["positives"],
        group_size=1,
        lr=LR,
        sgd=SGD,
        random=None,
        loss_dtype=torch.float32,
    )
    agrees(own, result, want)


@pytest.mark.parametrize("labels_per_chunk", [7, 1000])
def test_dense_step(labels_per_chunk):
    p = problem(9, 24, 50, 24, 1)
    p["index"] = torch.arange(24).repeat(50, 1).int()
    want = expected(p, 1)
    own = single(p)
    result = torch_backend.dense_step(
        own["features"],
        state_of(own),
        own["positives"],
        lr=LR,
        sgd=SGD,
        random=None,
        labels_per_chunk=labels_per_chunk,
        loss_dtype=torch.float32,
    )
    agrees(own, result, want)


def test_masked_weights_stay_zero():
    p = single(problem(9, 24, 50, 24, 1))
    mask = torch.rand(50, 24) < 0.5
    p["weight"] *= mask
    torch_backend.dense_step(
        p["features"],
        LayerState(p["weight"], p["bias"]),
        p["positives"],
        lr=LR,
        sgd=SGD,
        random=None,
        labels_per_chunk=50,
        loss_dtype=torch.float32,
        mask=mask,
    )
    assert (p["weight"][~mask] == 0).all()
    assert (p["weight"][mask] != 0).all()


def test_no_positives():
    p = single(problem(4, 48, 40, 16, 16))
    none = Positives(torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=torch.int32))
    loss, _ = torch_backend.sparse_step(
        p["features"],
        LayerState(p["weight"], p["bias"]),
        p["index"],
        none,
        group_size=16,
        lr=0.0,
        sgd=Sgd(),
        random=None,
        loss_dtype=torch.float32,
    )
    logits = reference.linear(p["features"], p["weight"], p["index"], p["bias"], 16)
    assert torch.allclose(loss, torch.nn.functional.softplus(logits).sum(), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_linears_and_their_gradients(shape):
    p = problem(*shape)
    leaves = [p[k].clone().requires_grad_() for k in ("features", "weight", "bias")]
    oracle = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    got = torch_backend.linear(leaves[0], leaves[1], p["index"], leaves[2], group_size=shape[4])
    want = reference.linear(oracle[0], oracle[1], p["index"], oracle[2], shape[4])
    assert torch.allclose(got, want)
    direction = torch.randn_like(want)
    got.backward(direction)
    want.backward(direction)
    for mine, theirs in zip(leaves, oracle, strict=True):
        assert torch.allclose(mine.grad, theirs.grad)


def test_fixed_fan_in_linear():
    p = problem(6, 48, 20, 16, 1)
    got = torch_backend.linear(p["features"], p["weight"], p["index"], p["bias"], group_size=1)
    want = reference.linear(p["features"], p["weight"], p["index"], p["bias"], 1)
    assert torch.allclose(got, want)


def test_a_repeated_feature_counts_twice():
    weight = torch.tensor([[2.0, 3.0]])
    index = torch.tensor([[1, 1]], dtype=torch.int32)
    features = torch.tensor([[10.0, 1.0]])
    got = torch_backend.linear(features, weight, index, None, group_size=16)
    assert got.tolist() == [[5.0]]


def test_bf16_weights_follow_fp32_ones():
    p = problem(16, 64, 48, 32, 16)
    want = expected(p, 16)
    own = single(p)
    for name in ("weight", "bias", "momentum", "bias_momentum"):
        own[name] = own[name].bfloat16()
    torch_backend.sparse_step(
        own["features"],
        state_of(own),
        own["index"],
        own["positives"],
        group_size=16,
        lr=LR,
        sgd=SGD,
        random=torch.Generator().manual_seed(0),
        loss_dtype=torch.float32,
    )
    assert own["weight"].dtype == torch.bfloat16
    assert torch.allclose(own["weight"].double(), want["weight"], rtol=0.02, atol=0.05)
