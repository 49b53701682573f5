"""Parameters as parts of one."""

import copy

import optimi
import torch
from torch import nn

from haste.training.flat import ALIGNED, flatten


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3, bias=False))


def test_values_stay_and_are_parts_of_one_tensor():
    before, after = model(), model()
    whole = flatten(list(after.parameters()))
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new)
    assert whole.numel() % ALIGNED == 0
    with torch.no_grad():
        whole.add_(1)
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(old + 1, new)
        assert new.data_ptr() % 16 == whole.data_ptr() % 16


def test_gradients_are_summed_in_place():
    own = model()
    whole = flatten(list(own.parameters()))
    inputs = torch.randn(4, 5)
    for _ in range(2):
        own(inputs).square().sum().backward()
    plain = model()
    plain(inputs).square().sum().backward()
    found = [each.grad for each in own.parameters()]
    assert whole.grad.norm() > 0
    for want, got in zip(plain.parameters(), found, strict=True):
        assert torch.allclose(got, 2 * want.grad)
    whole.grad.zero_()
    assert all(not each.any() for each in found)


def test_adam_does_to_the_whole_what_it_does_to_each():
    parts = model()
    alone = copy.deepcopy(parts)
    whole = flatten(list(parts.parameters()))
    options = {"lr": 0.01, "weight_decay": 0.1}
    together = optimi.Adam([whole], **options)
    each = optimi.Adam(alone.parameters(), **options)
    for step in range(5):
        inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        for net, optimizer in ((parts, together), (alone, each)):
            net(inputs).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=optimizer is each)
    for want, got in zip(alone.parameters(), parts.parameters(), strict=True):
        assert torch.equal(want, got)
