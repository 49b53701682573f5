"""Losses over all labels of a tile, summed, with their gradients.

The binary cross-entropy of logit z and target y is max(z, 0) - y z + log1p(exp(-|z|)); its gradient sigmoid(z) - y.
Both are evaluated in fp32. `bfloat16` mimics the released code, which rounds each intermediate result to
bf16: the log term is then wrong by up to 4x on typical logits, and the gradient of positives is 0 from
z of about 6 on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def bce_sum(
    logits: Tensor, label: Tensor, doc: Tensor, loss_dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Loss (fp32 scalar) and d(loss)/d(logits), in place of `logits`.

    `logits` fp32 [n, B], label-major, is overwritten; (`label`, `doc`) int [P] are its positives,
    each pair once.
    """
    positive = label.long(), doc.long()
    if loss_dtype == torch.bfloat16:
        rounded = logits.bfloat16()
        loss = rounded.clamp(min=0).sum(dtype=torch.float32)
        loss -= rounded[positive].sum(dtype=torch.float32)
        loss += (1 + (-rounded.abs()).exp()).log().sum(dtype=torch.float32)
        gradient = torch.sigmoid(rounded)
        gradient[positive] -= 1
        return loss, logits.copy_(gradient)
    loss = F.softplus(logits).sum() - logits[positive].sum()
    gradient = logits.sigmoid_()
    gradient[positive] -= 1
    return loss, gradient


def squared_hinge_sum(
    logits: Tensor, label: Tensor, doc: Tensor, loss_dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """As `bce_sum`, of max(0, 1 - t z)^2 with t = 1 for a positive and -1 for the rest."""
    positive = label.long(), doc.long()
    margins = logits.to(loss_dtype).add_(1)
    margins[positive] = 2 - margins[positive]
    loss = margins.clamp_(min=0).square().sum(dtype=torch.float32)
    gradient = margins.mul_(2)
    gradient[positive] *= -1
    return loss, logits.copy_(gradient)


Loss = Callable[[Tensor, Tensor, Tensor, torch.dtype], tuple[Tensor, Tensor]]
LOSSES: Mapping[str, Loss] = {"bce": bce_sum, "squared_hinge": squared_hinge_sum}
