import numpy as np
import pytest
import torch

from haste.kernels.rounding import (
    FP8,
    FP8_SCALE,
    dequantize,
    generator,
    mix,
    round_to,
    seed_torch,
    storage_view,
)


def test_stochastic_rounding_is_unbiased():
    # 1 + 2^-10 lies an eighth of the way from 1 to the next bf16, 1 + 2^-7
    value = torch.full((200_000,), 1 + 2**-10)
    rounded = round_to(
        value, torch.bfloat16, "stochastic", torch.Generator().manual_seed(0)
    ).float()
    assert set(rounded.unique().tolist()) == {1.0, 1 + 2**-7}
    share = (rounded > 1).float().mean().item()
    assert share == pytest.approx(1 / 8, abs=0.005)


def test_nearest_rounding_never_moves_a_small_update():
    value = torch.full((1000,), 1 + 2**-10)
    assert (round_to(value, torch.bfloat16, "nearest", None) == 1).all()


def test_exact_values_infinity_and_nan_stay():
    value = torch.tensor([0.0, -0.0, 1.5, -3.0, torch.inf, -torch.inf, torch.nan])
    rounded = round_to(
        value, torch.bfloat16, "stochastic", torch.Generator().manual_seed(1)
    ).float()
    assert torch.equal(rounded[:6], value[:6])
    assert rounded[6].isnan()


def test_the_same_parts_give_the_same_numbers_and_others_do_not():
    cpu = torch.device("cpu")
    draws = [
        torch.rand(4, generator=generator(cpu, *parts)).tolist()
        for parts in ((3, 5, 1), (3, 5, 1), (3, 5, 2), (5, 3, 1))
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert draws[0] != draws[3]


def test_seeds_fit_and_spread():
    seeds = {mix(seed, step, 1) for seed in range(20) for step in range(200)}
    assert len(seeds) == 4000
    assert all(0 <= s < 2**63 for s in seeds)


def test_e4m3_holds_each_of_its_numbers_and_its_ends():
    every = dequantize(torch.arange(256).to(torch.uint8).view(FP8))
    finite = every[every.isfinite()]
    assert finite.abs().max() == 448 * FP8_SCALE
    assert finite[finite > 0].min() == 2**-9 * FP8_SCALE
    for rounding in ("nearest", "stochastic"):
        again = round_to(finite, FP8, rounding, torch.Generator().manual_seed(0))
        assert torch.equal(dequantize(again), finite)
    beyond = round_to(torch.tensor([100.0, -torch.inf, torch.nan]), FP8, "nearest", None)
    assert dequantize(beyond)[:2].tolist() == [7.0, -7.0]
    assert dequantize(beyond)[2].isnan()
    assert storage_view(beyond).dtype == torch.uint8


@pytest.mark.parametrize(("low", "step"), [(1.0, 1 / 8), (2**-13, 2**-15), (3 * 2**-15, 2**-15)])
def test_e4m3_is_rounded_stochastically_without_bias(low, step):
    value = torch.full((200_000,), low + step / 4)
    rounded = dequantize(round_to(-value, FP8, "stochastic", torch.Generator().manual_seed(0)))
    assert set(rounded.unique().tolist()) == {-low, -(low + step)}
    assert (rounded < -low).float().mean().item() == pytest.approx(1 / 4, abs=0.005)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_torch_is_seeded_as_by_its_own_function(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    torch.rand(1, device=device)
    torch.manual_seed(mix(3, 4))
    wanted = torch.rand(8, device=device)
    seed_torch(3, 4)
    assert torch.equal(torch.rand(8, device=device), wanted)


def test_seeds_may_be_integers_of_numpy():
    assert mix(np.int64(3), np.uint8(4), -1) == mix(3, 4, -1)
