"""What the torch backend has of its own: tiles, chunks and its random numbers, against fp64."""

import pytest
import torch
from kernel_problems import DEVICE, NAMES, SGD, cast, error, oracle, problem, run

from haste.kernels import dense_fused_step, group_fused_step, reference, torch_backend
from haste.kernels.state import Sgd

SHAPES = [
    (1, 48, 40, 16, 16),
    (3, 96, 33, 32, 16),
    (7, 64, 16, 64, 16),
    (5, 40, 5, 16, 16),
    (64, 96, 130, 32, 64),
]


def agrees(p, got, group_size):
    want = oracle(p, group_size)
    for name in ("loss", "dx", *NAMES):
        assert error(got[name], want[name]) < 1e-5, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("single", [False, True])
def test_sparse_steps_go_tile_by_tile(shape, repeated, single, monkeypatch):
    monkeypatch.setattr(torch_backend, "TILE_BYTES", 4096)
    group_size = 1 if single else shape[4]
    p = cast(problem(*shape[:4], group_size, repeated=repeated), torch.float32)
    agrees(p, run(group_fused_step, p, group_size, backend="torch"), group_size)


def test_dense_steps_go_chunk_by_chunk():
    p = cast(problem(9, 24, 50, 24, 1), torch.float32)
    p["index"] = torch.arange(24, device=DEVICE).repeat(50, 1).int()

    def step(features, state, _, *given, group_size, **options):  # noqa: ARG001
        return dense_fused_step(features, state, *given, **options)

    agrees(p, run(step, p, 1, backend="torch", labels_per_chunk=7), 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_linears_go_tile_by_tile(shape, monkeypatch):
    monkeypatch.setattr(torch_backend, "TILE_BYTES", 4096)
    p, size = problem(*shape), shape[4]
    features, weight = (p[name].requires_grad_() for name in ("features", "weight"))
    want = reference.linear(features, weight, p["index"], p["bias"], size)
    dz = torch.randn_like(want)
    gradients = torch.autograd.grad(want, (features, weight), dz)
    with torch.no_grad():
        got = torch_backend.linear(features, weight, p["index"], p["bias"], group_size=size)
        back = torch_backend.linear_backward(dz, features, weight, p["index"], group_size=size)
    for mine, theirs in zip((got, *back), (want, *gradients), strict=True):
        assert torch.allclose(mine, theirs)


def test_bf16_weights_follow_fp32_ones():
    p = problem(16, 64, 48, 32, 16)
    want = oracle(p, 16)
    stochastic = Sgd(SGD.momentum, SGD.weight_decay)
    got = run(group_fused_step, cast(p, torch.bfloat16), 16, stochastic, backend="torch")
    assert got["weight"].dtype == torch.bfloat16
    assert error(got["weight"], want["weight"]) < 0.01
