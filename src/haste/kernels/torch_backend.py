"""The fused steps in plain torch, fast on a CPU: label-major tiles, gathers of whole feature rows.

Features are transposed once to [H, B], so the values of a gathered feature are contiguous. Labels are
processed tile by tile, so that no B x L tensor is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from haste.kernels.loss import LOSSES
from haste.kernels.rounding import FP8, dequantize, generator, round_to, storage_view
from haste.kernels.state import LayerState, Positives, Sgd, StepContext, tiles

TILE_BYTES = 64 << 20
"""rough bound on the largest temporary of a step"""
ADAM_BETA, ADAM_EPSILON = 0.999, 1e-8
"""of the squared gradients; added to their root"""


def positives_of(positives: Positives[Tensor], rows: slice) -> tuple[Tensor, Tensor]:
    """The positives of a slice of labels: label rows counted from rows.start, and documents, int32 [P]."""
    bounds = torch.tensor(
        [rows.start, rows.stop], dtype=positives.label_row.dtype, device=positives.label_row.device
    )
    low, high = torch.searchsorted(positives.label_row, bounds).tolist()
    return positives.label_row[low:high] - rows.start, positives.doc[low:high]


def dense_step(
    features: Tensor,
    state: LayerState,
    positives: Positives[Tensor],
    context: StepContext,
    sgd: Sgd,
    *,
    labels_per_chunk: int,
    loss_dtype: torch.dtype,
    loss_name: str = "bce",
    mask: Tensor | None = None,
    index: Tensor | None = None,
    listed: Tensor | None = None,
    cluster_size: int = 1,
) -> tuple[Tensor, Tensor]:
    """Loss and dX fp32 [B, H] of a dense layer, which is updated in place.

    features fp32 [B, H]; `mask` bool [L, H] keeps pruned weights at zero. With `index` int [L, F] the layer
    is of fixed fan-in, and its weights are densified chunk by chunk: on a CPU that takes a fifth of the
    time of gathering. With `listed` bool [K, B] label l is trained on no documents but those of
    listed[l // cluster_size], among which its positives are; where there are none it stays as it is.
    """
    update = updates(state, context, sgd)
    stored = [storage_view(value) for value in vars(state).values() if isinstance(value, Tensor)]
    dx = torch.zeros_like(features)
    columns = features.t().contiguous()
    loss = features.new_zeros(())
    for rows in tiles(len(state.weight), labels_per_chunk):
        tile = dequantize(state.weight[rows])
        if index is not None:
            row_index = index[rows].long()
            tile = features.new_zeros(len(tile), len(columns)).scatter_add_(1, row_index, tile)
        logits = torch.addmm(state.bias[rows, None].float(), tile, columns)
        if listed is not None:
            cluster = torch.arange(rows.start, rows.stop, device=listed.device) // cluster_size
            logits.masked_fill_(~listed[cluster], -torch.inf)
            resting = rows.start + (~listed.any(dim=1)[cluster]).nonzero().flatten()
            before = [value[resting] for value in stored]
        tile_loss, dz = LOSSES[loss_name](logits, *positives_of(positives, rows), loss_dtype)
        loss += tile_loss
        dx.addmm_(dz.t(), tile)
        dw = dz @ features
        if index is not None:
            dw = dw.gather(1, row_index)
        if mask is not None:
            dw.mul_(mask[rows])
        update(rows, dw, dz)
        if mask is not None:
            # momenta of pruned weights may go on
            storage_view(state.weight[rows]).mul_(mask[rows])
        if listed is not None:
            for value, unchanged in zip(stored, before, strict=True):
                value[resting] = unchanged
    return loss, dx


def sparse_step(
    features: Tensor,
    state: LayerState,
    index: Tensor,
    positives: Positives[Tensor],
    context: StepContext,
    sgd: Sgd,
    *,
    group_size: int,
    loss_dtype: torch.dtype,
    loss_name: str = "bce",
) -> tuple[Tensor, Tensor]:
    """As `dense_step`, with an index set for each group: weight [L, F], index int [K, F].

    Label l belongs to group l // group_size; the last group may be short.
    """
    if group_size == 1:
        return dense_step(
            features, state, positives, context, sgd, index=index, loss_dtype=loss_dtype, loss_name=loss_name,
            labels_per_chunk=max(1, TILE_BYTES // (4 * features.shape[1])),
        )  # fmt: skip
    update = updates(state, context, sgd)
    columns = features.t().contiguous()
    dx = torch.zeros_like(columns)
    loss = features.new_zeros(())
    for rows, gathered, features_of_tile in _group_tiles(columns, state.weight, index, group_size):
        tile = dequantize(state.weight[rows]).view(len(gathered), -1, state.weight.shape[1])
        logits = torch.bmm(tile, gathered).flatten(0, 1).add_(state.bias[rows, None].float())
        tile_loss, dz = LOSSES[loss_name](logits, *positives_of(positives, rows), loss_dtype)
        loss += tile_loss
        group_dz = dz.view(*tile.shape[:2], -1)
        group_dx = torch.bmm(tile.transpose(1, 2), group_dz)
        dx.index_add_(0, features_of_tile, group_dx.flatten(0, 1))
        dw = torch.bmm(group_dz, gathered.transpose(1, 2)).flatten(0, 1)
        update(rows, dw, dz)
    return loss, dx.t().contiguous()


def linear(
    features: Tensor, weight: Tensor, index: Tensor, bias: Tensor | None, *, group_size: int
) -> Tensor:
    """[B, L] logits of a sparse layer: features [B, H], weight [L, F], index int [K, F], bias [L]."""
    if group_size == 1:
        logits = features @ _densified(weight, index, features.shape[1]).t()
        return logits if bias is None else logits + bias
    columns = features.t()
    parts = []
    for rows, gathered, _ in _group_tiles(columns, weight, index, group_size):
        tile = weight[rows].view(len(gathered), -1, weight.shape[1])
        parts.append(torch.bmm(tile, gathered).flatten(0, 1))
    logits = torch.cat(parts).t()
    return logits if bias is None else logits + bias


def linear_backward(
    dz: Tensor, features: Tensor, weight: Tensor, index: Tensor, *, group_size: int
) -> tuple[Tensor, Tensor]:
    """Gradients [B, H] and [L, F] of features and weight in `linear`, for dz [B, L]."""
    if group_size == 1:
        dx = dz @ _densified(weight, index, features.shape[1])
        return dx, (dz.t() @ features).gather(1, index.long())
    columns = features.t()
    dx, dw = torch.zeros_like(columns), torch.empty_like(weight)
    for rows, gathered, features_of_tile in _group_tiles(columns, weight, index, group_size):
        tile = weight[rows].view(len(gathered), -1, weight.shape[1])
        group_dz = dz[:, rows].t().reshape(*tile.shape[:2], -1)
        group_dx = torch.bmm(tile.transpose(1, 2), group_dz)
        dx.index_add_(0, features_of_tile, group_dx.flatten(0, 1))
        dw[rows] = torch.bmm(group_dz, gathered.transpose(1, 2)).flatten(0, 1)
    return dx.t(), dw


def _densified(weight: Tensor, index: Tensor, n_features: int) -> Tensor:
    """[L, H] with the weights [L, F] at their features."""
    dense = weight.new_zeros(weight.shape[0], n_features)
    return dense.scatter_add_(1, index.long(), weight)


def _group_tiles(
    columns: Tensor, weight: Tensor, index: Tensor, group_size: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Label slice, gathered features [k, F, B] and their indices int64 [k F] of tiles of k equal groups; a
    short last group is its own tile."""
    n_labels, fan_in = weight.shape
    batch = columns.shape[1]
    whole_groups = n_labels // group_size
    groups_per_tile = max(1, TILE_BYTES // (4 * max(group_size, fan_in) * batch))
    spans = [(s.start, s.stop) for s in tiles(whole_groups, groups_per_tile)]
    if n_labels % group_size:
        spans.append((whole_groups, whole_groups + 1))
    for begin, end in spans:
        tile_index = index[begin:end].reshape(-1).long()
        gathered = columns.index_select(0, tile_index).view(end - begin, fan_in, batch)
        yield slice(begin * group_size, min(end * group_size, n_labels)), gathered, tile_index


def sgd_(
    value: Tensor,
    momentum: Tensor | None,
    gradient: Tensor,
    lr: float,
    sgd: Sgd,
    random: torch.Generator | None,
) -> None:
    """Update `value` and `momentum` (same shape; None without) in place.

    `gradient` is fp32 and is overwritten. Tensors narrower than fp32 are dequantized, updated and rounded
    as `sgd.rounding` says.
    """
    is_fp32 = value.dtype == torch.float32
    current = value if is_fp32 else dequantize(value)
    if sgd.weight_decay:
        gradient.add_(current, alpha=sgd.weight_decay)
    if momentum is not None:
        if momentum.dtype == torch.float32:
            gradient = momentum.mul_(sgd.momentum).add_(gradient)
        else:
            gradient.add_(momentum.float(), alpha=sgd.momentum)
            momentum.copy_(round_to(gradient, momentum.dtype, sgd.rounding, random))
    if is_fp32:
        value.add_(gradient, alpha=-lr)
    else:
        current = current.add_(gradient, alpha=-lr)
        value.copy_(round_to(current, value.dtype, sgd.rounding, random))


def adamw_(
    value: Tensor,
    momentum: Tensor,
    squared_momentum: Tensor,
    gradient: Tensor,
    lr: float,
    sgd: Sgd,
    step: int,
    random: torch.Generator | None,
) -> None:
    """AdamW's update of `value` and its momenta (same shape) in place, as the step-th of a run, from 0.

    `gradient` is fp32; tensors narrower than that are rounded as in `sgd_`.
    """
    mean = momentum.float().lerp(gradient, 1 - sgd.momentum)
    momentum.copy_(round_to(mean, momentum.dtype, sgd.rounding, random))
    squared_momentum.lerp_(gradient.square(), 1 - ADAM_BETA)
    size = (squared_momentum / (1 - ADAM_BETA ** (step + 1))).sqrt_().add_(ADAM_EPSILON)
    current = dequantize(value) * (1 - lr * sgd.weight_decay)
    current.addcdiv_(mean, size, value=-lr / (1 - sgd.momentum ** (step + 1)))
    value.copy_(round_to(current, value.dtype, sgd.rounding, random))


def updates(
    state: LayerState, context: StepContext, sgd: Sgd
) -> Callable[[slice, Tensor, Tensor], None]:
    """The update of a slice of labels by its dw and dz [n, B], with the random numbers of (seed, step)."""
    random = None
    if state.weight.dtype in (torch.bfloat16, FP8) and sgd.rounding == "stochastic":
        # rows of a larger layer have numbers of their own
        part = (state.first_row,) if state.first_row else ()
        random = generator(state.weight.device, context.seed, int(context.step), 1, *part)

    lr = float(context.lr)

    def update(rows: slice, dw: Tensor, dz: Tensor) -> None:
        for value, momentum, squared, gradient in (
            (state.weight, state.momentum, state.squared_momentum, dw),
            (state.bias, state.bias_momentum, state.bias_squared_momentum, dz.sum(1)),
        ):
            if sgd.adamw and momentum is not None and squared is not None:
                row_state = value[rows], momentum[rows], squared[rows]
                adamw_(*row_state, gradient, lr, sgd, int(context.step), random)
                continue
            row_momentum = None if momentum is None else momentum[rows]
            sgd_(value[rows], row_momentum, gradient, lr, sgd, random)

    return update
