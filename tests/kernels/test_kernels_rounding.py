import pytest
import torch

from haste.kernels.rounding import generator, mix, round_to


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
