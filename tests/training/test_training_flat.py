"""Parameters as parts of one."""

import copy

import optimi
import torch
from torch import nn

from haste.training.flat import ALIGNED, backward, flatten


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


def test_gradients_are_written_to_where_they_lie():
    own, unused = model(), nn.Parameter(torch.ones(3))
    parameters = [*own.parameters(), unused]
    whole = flatten(parameters)
    inputs = torch.randn(4, 5)
    for _ in range(2):
        out = own(inputs).square().sum()
        backward(out, torch.ones_like(out), parameters)
    plain = model()
    plain(inputs).square().sum().backward()
    for want, got in zip(plain.parameters(), own.parameters(), strict=True):
        assert torch.allclose(got.grad, want.grad)
    assert not unused.grad.any()
    assert torch.allclose(
        whole.grad.norm(), torch.stack([p.grad.norm() for p in parameters]).norm()
    )


def test_gradients_that_are_nowhere_yet_come_as_they_are():
    rows = nn.Embedding(6, 3, sparse=True)
    linear = nn.Linear(3, 2)
    flatten(list(linear.parameters()))
    out = linear(rows(torch.tensor([1, 4])))
    backward(out, torch.ones_like(out), [*rows.parameters(), *linear.parameters()])
    assert rows.weight.grad.is_sparse
    assert linear.bias.grad.tolist() == [2.0, 2.0]


def test_a_parameter_that_drops_out_of_a_step_has_no_gradient_of_an_earlier_one():
    used, dropped = nn.Linear(3, 2), nn.Linear(2, 2)
    parameters = [*used.parameters(), *dropped.parameters()]
    whole = flatten(parameters)
    inputs = torch.randn(4, 3)
    for net in (nn.Sequential(used, dropped), used):
        out = net(inputs).square().sum()
        backward(out, torch.ones_like(out), parameters)
    assert used.weight.grad.any()
    assert not dropped.weight.grad.any()
    before = dropped.weight.clone()
    optimi.Adam([whole], lr=0.1).step()
    assert torch.equal(dropped.weight, before)


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
            out = net(inputs).square().sum()
            backward(out, torch.ones_like(out), list(net.parameters()))
            optimizer.step()
            if optimizer is each:
                optimizer.zero_grad()
    for want, got in zip(alone.parameters(), parts.parameters(), strict=True):
        assert torch.equal(want, got)
