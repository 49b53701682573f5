"""The kernels between a layer's products against torch."""

import pytest
import torch
from kernel_problems import DEVICE
from torch import nn

from haste.kernels import residual
from haste.kernels.residual import Dropout, add_norm, gelu_backward, norm_backward
from haste.kernels.triton import residual as ours

NONE = Dropout(0.0, None, 0)
SHAPES = [(7, 32), (70, 48), (33, 384)]


def drawn(*shape, seed=0, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random).to(DEVICE, dtype)


def norm_of(width):
    norm = nn.LayerNorm(width, eps=1e-6).to(DEVICE)
    norm.weight.data, norm.bias.data = drawn(width, seed=8), drawn(width, seed=9)
    return norm.requires_grad_(False)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_and_norms_and_their_gradients(shape):
    x, a, dy, norm = drawn(*shape), drawn(*shape, seed=1), drawn(*shape, seed=2), norm_of(shape[1])
    z, y = ours.add_norm(x, a, norm.weight, norm.bias, norm.eps, 0.0, None, 0)
    assert torch.equal(z, x + a)
    assert torch.allclose(y, norm(x + a), atol=1e-5)
    found = [torch.full((shape[1],), torch.nan, device=DEVICE) for _ in range(3)]
    own = z.clone().requires_grad_()
    dz, da = ours.norm_backward(dy.clone(), z, norm.weight, norm.eps, 0.0, None, 0, found)
    assert da is dz
    norm.requires_grad_(True)
    wanted = torch.autograd.grad(norm(own), [own, norm.weight, norm.bias], dy)
    for mine, other in zip([dz, *found], [*wanted, wanted[0].sum(0)], strict=True):
        assert torch.allclose(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("tokens", "width", "dtype"), [(50, 64, torch.float32), (20, 768, torch.bfloat16)]
)
def test_gradients_pass_where_dropout_let_values_pass(tokens, width, dtype):
    seed, norm = torch.tensor([2**40 + 5], device=DEVICE), norm_of(width).to(dtype)
    x = torch.zeros(tokens, width, device=DEVICE, dtype=dtype)
    a = torch.ones_like(x)
    z, _ = ours.add_norm(x, a, norm.weight, norm.bias, norm.eps, 0.25, seed, 3)
    dropped = (z == 0).float().mean()
    assert abs(dropped - 0.25) < 5 * (0.25 * 0.75 / z.numel()) ** 0.5
    assert torch.allclose(z[z != 0].float(), torch.tensor(1 / 0.75, device=DEVICE), rtol=4e-3)
    sums = [torch.empty(width, device=DEVICE, dtype=dtype) for _ in range(3)]
    dy, at = drawn(tokens, width, dtype=dtype), drawn(tokens, width, seed=1, dtype=dtype)
    dz, da = ours.norm_backward(dy, at, norm.weight, norm.eps, 0.25, seed, 3, sums)
    assert torch.allclose(da.float(), dz.float() * z.float(), rtol=2e-2)
    wanted = da.float().sum(0)
    assert float((sums[2].float() - wanted).norm() / wanted.norm()) < 1e-2
    other, _ = ours.add_norm(x, a, norm.weight, norm.bias, norm.eps, 0.25, seed, 4)
    assert not torch.equal(z, other)


@pytest.mark.parametrize("shape", [(7, 32), (70, 300)])
def test_the_gradient_of_gelu_and_of_a_bias(shape):
    u, dg = drawn(*shape), drawn(*shape, seed=1)
    wanted = torch.ops.aten.gelu_backward(dg, u)
    bias = torch.empty(shape[1], device=DEVICE)
    found, again = ours.gelu_backward(u.clone(), dg, bias)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(again, torch.nn.functional.gelu(u), atol=1e-5)
    assert torch.allclose(bias, wanted.sum(0), atol=1e-4)


def test_in_bf16():
    x, a, dy = (drawn(40, 96, seed=seed, dtype=torch.bfloat16) for seed in range(3))
    norm = norm_of(96).bfloat16()
    z, y = ours.add_norm(x, a, norm.weight, norm.bias, norm.eps, 0.0, None, 0)
    assert torch.equal(z, x + a)
    wide = norm_of(96)
    assert torch.allclose(y.float(), wide(z.float()), atol=4e-2)
    sums = [torch.empty(96, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
    own = z.float().requires_grad_()
    dz, _ = ours.norm_backward(dy.clone(), z, norm.weight, norm.eps, 0.0, None, 0, sums)
    (wanted,) = torch.autograd.grad(wide(own), own, dy.float())
    assert float((dz.float() - wanted).norm() / wanted.norm()) < 1e-2


def test_on_a_cpu_by_torch():
    x, a, dy, norm = (*(drawn(9, 16, seed=seed).cpu() for seed in range(3)), norm_of(16).cpu())
    for dropout in (NONE, Dropout(0.5, torch.tensor([3]), 2)):
        own = [x.clone().requires_grad_(), a.clone().requires_grad_()]
        factor = dropout.factor(a) if dropout.p else torch.ones_like(a)
        z, y = add_norm(*own, norm, dropout)
        assert torch.allclose(z, x + a * factor)
        wanted = torch.autograd.grad(y, own, dy)
        sums = [torch.empty(16) for _ in range(3)]
        found = norm_backward(dy, z.detach(), norm, dropout, sums)
        for mine, other in zip(found, wanted, strict=True):
            assert torch.allclose(mine, other, atol=1e-5)
        assert torch.allclose(sums[2], wanted[1].sum(0), atol=1e-5)
    bias = torch.empty(16)
    found, again = gelu_backward(x, dy, bias)
    assert torch.allclose(found.sum(0), bias, atol=1e-5)
    assert torch.equal(again, torch.nn.functional.gelu(x))


def test_the_factor_of_dropout_is_a_function_of_seed_and_site():
    like = torch.empty(20, 20)

    def factor(seed, site):
        return residual.Dropout(0.5, torch.tensor([seed]), site).factor(like)

    assert torch.equal(factor(1, 2), factor(1, 2))
    assert not torch.equal(factor(1, 2), factor(1, 3))
    assert not torch.equal(factor(1, 2), factor(2, 2))
