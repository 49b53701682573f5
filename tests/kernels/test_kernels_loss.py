import math

import pytest
import torch

from haste.kernels.loss import bce_sum, squared_hinge_sum


def pairs(*entries):
    label, row = zip(*entries, strict=True) if entries else ((), ())
    return torch.tensor(label, dtype=torch.int32), torch.tensor(row, dtype=torch.int32)


def test_by_hand():
    logits = torch.tensor([[0.0, 2.0], [-1.0, 0.0]])
    loss, gradient = bce_sum(logits, *pairs((0, 1)))
    want = math.log(2) + (math.log1p(math.exp(2)) - 2) + math.log1p(math.exp(-1)) + math.log(2)
    assert loss.item() == pytest.approx(want, rel=1e-6)
    sigmoid = [1 / (1 + math.exp(-z)) for z in (0, 2, -1, 0)]
    assert gradient.flatten().tolist() == pytest.approx(
        [sigmoid[0], sigmoid[1] - 1, sigmoid[2], sigmoid[3]], rel=1e-6
    )


def test_extreme_logits_stay_finite_and_right():
    logits = torch.tensor([[200.0, -200.0, 200.0, -200.0]])
    loss, gradient = bce_sum(logits, *pairs((0, 0), (0, 1)))
    assert loss.item() == pytest.approx(400.0)
    assert gradient.flatten().tolist() == [0.0, -1.0, 1.0, 0.0]


def test_small_losses_of_negatives_are_not_lost():
    loss, _ = bce_sum(torch.full((1, 1000), -12.0), *pairs())
    assert loss.item() == pytest.approx(1000 * math.log1p(math.exp(-12)), rel=1e-4)


def test_the_released_bf16_loss_loses_them():
    loss, _ = bce_sum(torch.full((1, 1000), -12.0), *pairs(), torch.bfloat16)
    assert loss.item() == 0


def test_the_released_bf16_loss_gives_confident_positives_no_gradient():
    logits = torch.full((1, 1), 6.5)
    _, exact = bce_sum(logits.clone(), *pairs((0, 0)))
    _, released = bce_sum(logits.clone(), *pairs((0, 0)), torch.bfloat16)
    assert exact.item() == pytest.approx(-0.0015, abs=1e-4)
    assert released.item() == 0


def test_squared_hinge_by_hand():
    # negatives pay above -1, positives below 1
    logits = torch.tensor([[-2.0, -1.0, 0.5], [0.0, 2.0, -1.0]])
    loss, gradient = squared_hinge_sum(logits, *pairs((1, 0), (1, 1), (1, 2)))
    assert loss == 1.5**2 + 1 + 2**2
    assert gradient.tolist() == [[0, 0, 3], [-2, 0, -4]]
    assert gradient is logits
    # 1.5 + 2^-9 has more digits than bf16
    rounded, _ = squared_hinge_sum(torch.tensor([[0.501953125]]), *pairs(), torch.bfloat16)
    assert rounded == 1.5**2
