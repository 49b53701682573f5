"""GroupFanInLinear in place of nn.Linear: a torch model with many outputs, trained by Adam, rewired, exported."""

import logging

import torch
from torch import nn

from haste.layers import GroupFanInLinear

logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("example")
torch.manual_seed(0)

INPUTS, HIDDEN, OUTPUTS, STEPS = 64, 256, 5_000, 300
layer = GroupFanInLinear(HIDDEN, OUTPUTS, fan_in=32, group_size=32)
model = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.GELU(), layer)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
nn.init.constant_(layer.bias, -6.0)  # few outputs are positive
log.info("%d weights where nn.Linear has %d", layer.weight.numel(), HIDDEN * OUTPUTS)

# Each input belongs to one of 200 classes, and each class has five outputs.
centres, outputs = torch.randn(200, INPUTS), torch.randint(OUTPUTS, (200, 5))
for step in range(STEPS):
    classes = torch.randint(200, (64,))
    target = torch.zeros(64, OUTPUTS).scatter_(1, outputs[classes], 1)
    logits = model(centres[classes] + 0.3 * torch.randn(64, INPUTS))
    loss = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum") / 64
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 49 and step < 0.66 * STEPS:
        layer.rewire(0.2, step=step, optimizer=optimizer)
    if step % 100 == 99:
        log.info("step %d: loss %.2f", step + 1, loss)

best = model(centres).topk(5).indices
found = (best[:, :, None] == outputs[:, None, :]).any(2).float().mean()
log.info("outputs found among the best five: %.0f %%", 100 * found)

program = torch.export.export(
    model, (torch.randn(2, INPUTS),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
)
log.info("exported: %s", tuple(program.module()(torch.randn(7, INPUTS)).shape))
