import pytest
import torch
from kernel_problems import DEVICE

from haste.kernels.dropout import dropout

BACKENDS = ["torch", "triton"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("p", [0.25, 0.8])
def test_a_share_is_zeroed_and_the_rest_scaled(backend, p):
    values = 1 + torch.rand(37, 100, device=DEVICE)
    got = dropout(values, p, seed=3, step=5, backend=backend)
    kept = got != 0
    assert torch.allclose(got[kept], values[kept] / (1 - p))
    # five standard deviations of a binomial share
    assert abs(kept.float().mean() - (1 - p)) < 5 * (p * (1 - p) / values.numel()) ** 0.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mask_is_a_function_of_seed_and_step(backend):
    ones = torch.ones(8, 64, device=DEVICE)

    def mask(seed, step):
        return dropout(ones, 0.5, seed=seed, step=step, backend=backend) != 0

    assert torch.equal(mask(1, 2), mask(1, 2))
    assert not torch.equal(mask(1, 2), mask(1, 3))
    assert not torch.equal(mask(1, 2), mask(2, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_formats_and_strides_are_kept(backend):
    values = torch.rand(6, 40, device=DEVICE).bfloat16().t()
    got = dropout(values, 0.5, seed=1, step=1, backend=backend)
    assert got.dtype == torch.bfloat16
    assert got.shape == values.shape
    kept = got != 0
    assert torch.equal(got[kept], 2 * values[kept])


def test_the_step_may_lie_in_memory():
    values = torch.rand(8, 64, device=DEVICE)
    there = torch.tensor(7, dtype=torch.int32, device=DEVICE)
    assert torch.equal(
        dropout(values, 0.5, seed=1, step=there, backend="triton"),
        dropout(values, 0.5, seed=1, step=7, backend="triton"),
    )
