import pytest
import torch

from haste.config import AuxiliaryConfig, RewireConfig
from haste.layers.wrappers import auxiliary_scale
from haste.training.schedule import learning_rate_factor, rewires_at


def test_rewiring_happens_at_intervals_until_its_end():
    config = RewireConfig(interval=10, until=0.5)
    assert [s for s in range(1, 101) if rewires_at(s, 100, config)] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("off", [{"growth": "none"}, {"fraction": 0.0}])
def test_rewiring_can_be_off(off):
    config = RewireConfig(interval=1, until=1.0, **off)
    assert not any(rewires_at(s, 100, config) for s in range(1, 101))


def test_a_threshold_moves_connections_without_a_fraction():
    config = RewireConfig(interval=50, until=1.0, fraction=0.0, threshold=0.01)
    assert [s for s in range(1, 101) if rewires_at(s, 100, config)] == [50, 100]


def test_learning_rate_warms_up_and_falls_to_zero():
    factors = [learning_rate_factor(s, 100, 0.1) for s in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (s + 1) for s in range(10)])
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.5)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[99] < 0.001


def test_no_warm_up_starts_at_one():
    assert learning_rate_factor(0, 10, 0.0) == 1.0


def test_auxiliary_loss_fades_and_is_cut_off():
    config = AuxiliaryConfig(scale=0.4, cutoff=0.5)
    scales = [auxiliary_scale(s, 100, config) for s in range(100)]
    assert scales[0] == pytest.approx(0.4)
    assert scales[25] == pytest.approx(0.2)
    assert scales[49] > 0
    assert scales[50:] == [0.0] * 50


def test_the_scale_of_a_step_in_memory_is_the_same():
    config = AuxiliaryConfig(scale=0.4, cutoff=0.5)
    for step in (0, 13, 49, 50, 99):
        got = auxiliary_scale(torch.tensor(step, dtype=torch.int32), 100, config)
        assert got.item() == pytest.approx(auxiliary_scale(step, 100, config), abs=1e-7)
    never = AuxiliaryConfig(scale=0.4, cutoff=0.0)
    assert auxiliary_scale(torch.tensor(0), 100, never).item() == 0
