"""Attention of documents end to end."""

from dataclasses import replace

import pytest
import torch
from kernel_problems import DEVICE

from haste.errors import KernelError
from haste.kernels.packed_attention import LONGEST, Documents, attend, attend_backward
from haste.kernels.residual import Dropout
from haste.kernels.triton import packed_attention as ours

NONE = Dropout(0.0, None, 0)
LENGTHS = [5, 0, 1, 31, 12]


def problem(heads=2, size=16, lengths=LENGTHS, dtype=torch.float32, device=DEVICE):
    """qkv, documents and a gradient."""
    random = torch.Generator().manual_seed(0)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
    shape = (sum(lengths), heads, size)
    qkv = torch.randn(shape[0], 3, *shape[1:], generator=random).to(device, dtype)
    return qkv, Documents(bounds, max(lengths)), torch.randn(shape, generator=random).to(qkv)


def alone(qkv, documents, gradient):
    """By torch, one document after the other, with the gradient."""
    own = qkv.detach().double().requires_grad_()
    out = []
    for begin, end in zip(documents.bounds[:-1], documents.bounds[1:], strict=True):
        each = own[begin:end].permute(1, 2, 0, 3)
        found = torch.nn.functional.scaled_dot_product_attention(*each[:, None])
        out.append(found[0].transpose(0, 1))
    out = torch.cat(out)
    return out, torch.autograd.grad(out, own, gradient.double())[0]


def alone_with_bias(qkv, documents, gradient, bias):
    """As `alone`, and the gradient of a bias [heads, S, S]."""
    own, leaf = (each.detach().double().requires_grad_() for each in (qkv, bias))
    out = []
    for begin, end in zip(documents.bounds[:-1], documents.bounds[1:], strict=True):
        query, key, value = own[begin:end].permute(1, 2, 0, 3)
        size = len(own[begin:end])
        scores = query @ key.transpose(1, 2) / qkv.shape[3] ** 0.5 + leaf[:, :size, :size]
        out.append((scores.softmax(2) @ value).transpose(0, 1))
    out = torch.cat(out)
    return out, *torch.autograd.grad(out, (own, leaf), gradient.double())


def far(got, want):
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize(("heads", "size"), [(2, 16), (3, 32), (1, 64)])
def test_a_document_attends_to_itself(heads, size):
    qkv, documents, gradient = problem(heads, size)
    out, d_qkv = alone(qkv, documents, gradient)
    cpu = Documents(documents.bounds.cpu(), documents.longest)
    attended = attend(qkv.cpu(), cpu, NONE)
    assert far(attended.out, out.cpu()) < 1e-5
    found = attend_backward(qkv.cpu(), cpu, NONE, attended, gradient.cpu())
    assert far(found, d_qkv.cpu()) < 1e-5
    assert far(ours.attend(qkv, documents, NONE), out) < 1e-5
    assert far(ours.attend_backward(qkv, documents, NONE, gradient), d_qkv) < 1e-5


def test_a_bias_is_added_to_the_scores_and_has_a_gradient():
    qkv, documents, gradient = problem(3, 32)
    shape = (3, documents.longest, documents.longest)
    bias = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    out, d_qkv, d_bias = alone_with_bias(qkv, documents, gradient, bias)
    assert far(ours.attend(qkv, documents, NONE, bias), out) < 1e-5
    summed = torch.ones_like(bias)
    found = ours.attend_backward(qkv, documents, NONE, gradient, bias, summed)
    assert far(found, d_qkv) < 1e-5
    # added to what is there
    assert far(summed - 1, d_bias) < 1e-5
    on_cpu = [each.cpu() for each in (qkv, gradient, bias)]
    cpu = Documents(documents.bounds.cpu(), documents.longest)
    attended = attend(on_cpu[0], cpu, NONE, on_cpu[2])
    assert far(attended.out, out.cpu()) < 1e-5
    summed = torch.ones(shape)
    found = attend_backward(on_cpu[0], cpu, NONE, attended, on_cpu[1], on_cpu[2], summed)
    assert far(found, d_qkv.cpu()) < 1e-5
    assert far(summed - 1, d_bias.cpu()) < 1e-5


def test_dropout_is_the_same_in_the_backward_pass():
    qkv, documents, gradient = problem(2, 32)
    dropout = Dropout(0.4, torch.tensor([77], device=DEVICE), 5)
    moved = qkv.double()
    moved[:, 2] += gradient
    # the result is linear in the values, so its gradient is known whatever the weights are
    out = ours.attend(qkv, documents, dropout)
    slope = ((ours.attend(moved.float(), documents, dropout) - out) * gradient).sum()
    d_value = ours.attend_backward(qkv, documents, dropout, gradient)[:, 2]
    assert torch.allclose((d_value * gradient).sum(), slope, rtol=1e-4)
    assert not torch.equal(out, ours.attend(qkv, documents, replace(dropout, site=6)))
    assert far(out, alone(qkv, documents, gradient)[0]) > 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("longest", [20, 32, 64, 65])
def test_a_bias_on_a_gpu(longest):
    qkv, documents, gradient = problem(12, 64, [longest, 0, 7, 1, longest], torch.bfloat16)
    bias = torch.randn(12, longest, longest, device=DEVICE, dtype=torch.bfloat16)
    if longest > LONGEST:
        with pytest.raises(KernelError, match="64 tokens"):
            attend(qkv, documents, NONE, bias)
        return
    out, d_qkv, d_bias = alone_with_bias(qkv, documents, gradient, bias)
    attended = attend(qkv, documents, NONE, bias)
    assert far(attended.out, out) < 1e-2
    summed = torch.zeros(bias.shape, device=DEVICE)
    found = attend_backward(qkv, documents, NONE, attended, gradient, bias, summed)
    assert far(found, d_qkv) < 2e-2
    assert far(summed, d_bias) < 2e-2
    again = torch.zeros_like(summed)
    attend_backward(qkv, documents, NONE, attended, gradient, bias, again)
    assert torch.equal(summed, again)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("longest", [32, 64, 128, 300])
def test_on_a_gpu(longest):
    lengths = [longest, 0, 7, longest // 2, 1, longest]
    qkv, documents, gradient = problem(12, 64, lengths, torch.bfloat16)
    out, d_qkv = alone(qkv, documents, gradient)
    attended = attend(qkv, documents, NONE)
    assert far(attended.out, out) < 1e-2
    assert far(attend_backward(qkv, documents, NONE, attended, gradient), d_qkv) < 2e-2
    dropout = Dropout(0.4, torch.tensor([5], device=DEVICE), 1)
    attended = attend(qkv, documents, dropout)
    moved = qkv.clone()
    moved[:, 2] = 0
    moved[:, 2, :, 0] = 1  # the sum of the weights that were let pass
    if longest <= 64:
        kept = attend(moved, documents, dropout).out[:, :, 0].float()
        assert abs(kept.mean() - 1) < 0.05
        assert kept.std() > 0.05
    found = attend_backward(qkv, documents, dropout, attended, gradient)
    # of the values: linear, so gradient times values is result times gradient
    left = (found[:, 2].double() * qkv[:, 2].double()).sum()
    right = (attended.out.double() * gradient.double()).sum()
    assert float(left) == pytest.approx(float(right), rel=0.05, abs=3)
