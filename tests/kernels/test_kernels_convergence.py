"""Training in bf16 by fused steps follows training in fp32 by autograd."""

import pytest
import torch
from kernel_problems import DEVICE

from haste.kernels import dense_fused_step, group_fused_step, reference
from haste.kernels.state import LayerState, Positives, Sgd, StepContext

STEPS = 200
INTERPRETED_STEPS = 60
"""in Triton's interpreter a step takes a tenth of a second"""
WINDOW = 20
BATCH, FEATURES, LABELS, FAN_IN, GROUP = 16, 32, 48, 16, 16


def documents(seed):
    """Features [B, H] of documents and their positives: a label is true where its direction is seen."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(BATCH, FEATURES, generator=random)
    directions = torch.randn(LABELS, FEATURES, generator=torch.Generator().manual_seed(99))
    target = features @ directions.t() > 1.5 * FEATURES**0.5
    return features.to(DEVICE), target.to(DEVICE)


def by_autograd(weight, bias, index, group_size, steps):
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.SGD([weight, bias], lr=0.003, momentum=0.9)
    losses = []
    for step in range(steps):
        features, target = documents(step)
        logits = reference.linear(features, weight, index, bias, group_size)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target.float(), reduction="sum"
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def by_fused_steps(kind, weight, bias, index, backend, steps):
    weight, bias = weight.bfloat16(), bias.bfloat16()
    state = LayerState(weight, bias, torch.zeros_like(weight), torch.zeros_like(bias))
    losses = []
    for step in range(steps):
        features, target = documents(step)
        label, row = target.t().nonzero(as_tuple=True)
        pairs = Positives(label.int().contiguous(), row.int().contiguous())
        given = (pairs, StepContext(0.003, 0, step), Sgd(0.9))
        features = features.bfloat16()
        if kind == "dense":
            found = dense_fused_step(features, state, *given, backend=backend)
        else:
            found = group_fused_step(
                features, state, index, *given, group_size=GROUP, backend=backend
            )
        losses.append(float(found[0]))
    return losses


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("kind", ["group", "dense"])
def test_losses_stay_within_a_percent(kind, backend):
    random = torch.Generator().manual_seed(0)
    if kind == "dense":
        width, size = FEATURES, 1
        index = torch.arange(FEATURES).repeat(LABELS, 1)
    else:
        width, size = FAN_IN, GROUP
        index = torch.rand(LABELS // GROUP, FEATURES, generator=random).topk(FAN_IN).indices
    index = index.int().to(DEVICE)
    weight = (torch.randn(LABELS, width, generator=random) * 0.1).bfloat16().float().to(DEVICE)
    bias = torch.zeros(LABELS, device=DEVICE)
    steps = INTERPRETED_STEPS if backend == "triton" and DEVICE == "cpu" else STEPS
    wanted = by_autograd(weight, bias, index, size, steps)
    found = by_fused_steps(kind, weight, bias, index, backend, steps)
    want, got = (torch.tensor(each).view(-1, WINDOW).mean(1) for each in (wanted, found))
    assert want[-1] < 0.75 * want[0], "there is something to learn"
    assert ((got - want).abs() / want).max() < 0.01
