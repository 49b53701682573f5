"""The fused steps in plain torch, quick on a CPU: label-major tiles, gathers of whole feature rows.

Features are transposed once to [H, B], so a gathered feature is a contiguous run of the batch. Work
goes tile by tile of labels, so no tensor of size B x L is ever made when the tile is smaller.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from haste.kernels.loss import bce_sum
from haste.kernels.rounding import round_to, widen
from haste.kernels.state import Positives, Sgd

TILE_BYTES = 64 << 20
"""rough bound on the largest temporary of a step"""


def tiles(n_labels: int, labels_a_tile: int) -> Iterator[slice]:
    """Slices that cover 0..n_labels in order."""
    for begin in range(0, n_labels, labels_a_tile):
        yield slice(begin, min(begin + labels_a_tile, n_labels))


def positives_of(positives: Positives, rows: slice) -> tuple[Tensor, Tensor]:
    """The positives of a slice of labels, (label - rows.start, row)."""
    bounds = torch.tensor(
        [rows.start, rows.stop], dtype=positives.label.dtype, device=positives.label.device
    )
    low, high = torch.searchsorted(positives.label, bounds).tolist()
    return positives.label[low:high] - rows.start, positives.row[low:high]


def dense_step(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: Tensor | None,
    bias_momentum: Tensor | None,
    positives: Positives,
    *,
    sgd: Sgd,
    random: torch.Generator | None,
    labels_a_tile: int,
    loss_dtype: torch.dtype,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss and d(loss)/d(features) fp32 [B, H] of a dense layer, which is updated in place.

    features fp32 [B, H], weight [L, H], bias [L]; `mask` bool [L, H] keeps pruned weights at zero.
    """
    grad_features = torch.zeros_like(features)
    columns = features.t().contiguous()
    loss = features.new_zeros(())
    for rows in tiles(weight.shape[0], labels_a_tile):
        tile = widen(weight[rows])
        logits = torch.addmm(bias[rows, None].float(), tile, columns)
        part, gradient = bce_sum(logits, *positives_of(positives, rows), loss_dtype)
        loss += part
        grad_features.addmm_(gradient.t(), tile)
        grad_weight = gradient @ features
        if mask is not None:
            grad_weight.mul_(mask[rows])
        _update(weight, momentum, grad_weight, rows, sgd, random)
        _update(bias, bias_momentum, gradient.sum(1), rows, sgd, random)
    return loss, grad_features


def fixed_fan_in_step(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor,
    momentum: Tensor | None,
    bias_momentum: Tensor | None,
    positives: Positives,
    *,
    sgd: Sgd,
    random: torch.Generator | None,
    loss_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """As `dense_step`, with an index set for each label: weight [L, F], index int [L, F].

    On a CPU a dense product over spread weights is about five times quicker than gathering.
    """
    grad_features = torch.zeros_like(features)
    columns = features.t().contiguous()
    loss = features.new_zeros(())
    n_features = features.shape[1]
    labels_a_tile = max(1, TILE_BYTES // (4 * n_features))
    for rows in tiles(weight.shape[0], labels_a_tile):
        at = index[rows].long()
        spread = features.new_zeros(at.shape[0], n_features)
        spread.scatter_add_(1, at, widen(weight[rows]))
        logits = torch.addmm(bias[rows, None].float(), spread, columns)
        part, gradient = bce_sum(logits, *positives_of(positives, rows), loss_dtype)
        loss += part
        grad_features.addmm_(gradient.t(), spread)
        grad_weight = (gradient @ features).gather(1, at)
        _update(weight, momentum, grad_weight, rows, sgd, random)
        _update(bias, bias_momentum, gradient.sum(1), rows, sgd, random)
    return loss, grad_features


def group_step(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor,
    momentum: Tensor | None,
    bias_momentum: Tensor | None,
    positives: Positives,
    *,
    group_size: int,
    sgd: Sgd,
    random: torch.Generator | None,
    loss_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """As `dense_step`, with an index set for each group: weight [L, F], index int [K, F].

    Label l belongs to group l // group_size; the last group may be short.
    """
    columns = features.t().contiguous()
    grad_columns = torch.zeros_like(columns)
    loss = features.new_zeros(())
    for rows, gathered, at in _group_tiles(columns, weight, index, group_size):
        tile = widen(weight[rows]).view(len(gathered), -1, weight.shape[1])
        logits = torch.bmm(tile, gathered).flatten(0, 1).add_(bias[rows, None].float())
        part, gradient = bce_sum(logits, *positives_of(positives, rows), loss_dtype)
        loss += part
        by_group = gradient.view(*tile.shape[:2], -1)
        back = torch.bmm(tile.transpose(1, 2), by_group)
        grad_columns.index_add_(0, at, back.flatten(0, 1))
        grad_weight = torch.bmm(by_group, gathered.transpose(1, 2)).flatten(0, 1)
        _update(weight, momentum, grad_weight, rows, sgd, random)
        _update(bias, bias_momentum, gradient.sum(1), rows, sgd, random)
    return loss, grad_columns.t().contiguous()


def group_linear(
    features: Tensor, weight: Tensor, index: Tensor, bias: Tensor | None, *, group_size: int
) -> Tensor:
    """[B, L] logits of a group-shared layer; differentiable by autograd."""
    columns = features.t()
    parts = []
    for rows, gathered, _ in _group_tiles(columns, weight, index, group_size):
        tile = weight[rows].view(len(gathered), -1, weight.shape[1])
        parts.append(torch.bmm(tile, gathered).flatten(0, 1))
    logits = torch.cat(parts).t()
    return logits if bias is None else logits + bias


def fixed_fan_in_linear(
    features: Tensor, weight: Tensor, index: Tensor, bias: Tensor | None
) -> Tensor:
    """[B, L] logits with an index set for each label; differentiable by autograd."""
    spread = features.new_zeros(weight.shape[0], features.shape[1]).to(weight.dtype)
    logits = features @ spread.scatter_add(1, index.long(), weight).t()
    return logits if bias is None else logits + bias


def _group_tiles(
    columns: Tensor, weight: Tensor, index: Tensor, group_size: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Label slice, gathered features [k, F, B] and their feature numbers [k F] of tiles of equal
    groups; a short last group is a tile of its own."""
    n_labels, fan_in = weight.shape
    batch = columns.shape[1]
    whole = n_labels // group_size
    groups_a_tile = max(1, TILE_BYTES // (4 * max(group_size, fan_in) * batch))
    spans = [(s.start, s.stop) for s in tiles(whole, groups_a_tile)]
    if n_labels % group_size:
        spans.append((whole, whole + 1))
    for begin, end in spans:
        at = index[begin:end].reshape(-1).long()
        gathered = columns.index_select(0, at).view(end - begin, fan_in, batch)
        yield slice(begin * group_size, min(end * group_size, n_labels)), gathered, at


def sgd_(
    value: Tensor,
    velocity: Tensor | None,
    gradient: Tensor,
    sgd: Sgd,
    random: torch.Generator | None,
) -> None:
    """Update `value` and `velocity` (same shape; None without momentum) in place.

    `gradient` is fp32 and is overwritten. Tensors narrower than fp32 are widened, updated and rounded
    back as `sgd.rounding` says.
    """
    wide = value.dtype == torch.float32
    current = value if wide else widen(value)
    if sgd.weight_decay:
        gradient.add_(current, alpha=sgd.weight_decay)
    if velocity is not None:
        if velocity.dtype == torch.float32:
            gradient = velocity.mul_(sgd.momentum).add_(gradient)
        else:
            gradient.add_(velocity.float(), alpha=sgd.momentum)
            velocity.copy_(round_to(gradient, velocity.dtype, sgd.rounding, random))
    if wide:
        value.add_(gradient, alpha=-sgd.lr)
    else:
        current = current.add_(gradient, alpha=-sgd.lr)
        value.copy_(round_to(current, value.dtype, sgd.rounding, random))


def _update(
    value: Tensor,
    velocity: Tensor | None,
    gradient: Tensor,
    rows: slice,
    sgd: Sgd,
    random: torch.Generator | None,
) -> None:
    sgd_(value[rows], None if velocity is None else velocity[rows], gradient, sgd, random)
