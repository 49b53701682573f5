"""The fused step of dense rows in Triton: slab by slab of labels, no B x L tensor.

A slab's logits become loss and dz [labels, B] in one kernel; dz times the weights, the features'
gradient, is a product for cuBLAS; another kernel makes the weights' gradient tile by tile and updates
the tile before it is ever written. Fixed fan-in takes the same way through weights that are densified to
all features: on tensor cores that is quicker than gathering for each label.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels.checks import check_one_of
from haste.kernels.rounding import FP8, FP8_SCALE, storage_view
from haste.kernels.state import FAN_INS, LayerState, Positives, Sgd, StepContext
from haste.kernels.triton.common import (
    PHILOX_ROUNDS,
    as_bf16,
    batch_tiles,
    bce_rows,
    bce_rows_bf16,
    dequantize,
    dot_dtype,
    factor,
    narrow,
    noise_of,
    number,
    product,
    random_row,
    sgd_update,
    sigmoid,
    store_rounded,
    transposed,
)
from haste.kernels.triton.densify import densify

SLAB_BYTES = 32 << 20
"""of dz for a slab of labels"""
DENSE_BYTES = 256 << 20
"""of the fp32 gradient of a slab's densified weights"""
UPDATE_TILE = 64
"""labels a program updates"""


@triton.jit(do_not_specialize=["first", "n_labels"])
def _loss_and_gradient(
    h, w, bias, dz, loss, first, n_labels, n_features, batch, width,
    LT: tl.constexpr, BB: tl.constexpr, KT: tl.constexpr, PADDED: tl.constexpr,
    BF16_LOSS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dz [T, Bp] and the loss of a tile of labels, numbered from `first` on, and of the batch, as if no
    label were a positive."""
    own = tl.program_id(1).to(tl.int64) * LT + tl.arange(0, LT)
    rows = first + own
    inside = rows < n_labels
    b = tl.program_id(0) * BB + tl.arange(0, BB)
    z = tl.zeros([LT, BB], tl.float32)
    for start in tl.range(0, n_features, KT, num_stages=3):
        c = start + tl.arange(0, KT)
        there = (c < n_features)[None, :] & inside[:, None]
        weight = tl.load(w + own[:, None] * n_features + c[None, :], mask=there, other=0)
        x = tl.load(h + c[:, None] * width + b[None, :], mask=(c < n_features)[:, None], other=0.0)
        z = tl.dot(factor(weight, DOT), x.to(DOT), z, input_precision=PRECISION)
    offset = tl.load(bias + rows, mask=inside, other=0.0).to(tl.float32)
    z += tl.where(inside, offset, -1e30)[:, None]
    if BF16_LOSS:
        z = as_bf16(z)
    gradient, e = sigmoid(z)
    if BF16_LOSS:
        gradient = as_bf16(gradient)
    if PADDED:
        real = (b < batch)[None, :]
        gradient = tl.where(real, gradient, 0.0)
        e = tl.where(real, e, 0.0)
        z = tl.where(real, z, -1e30)
    total = bce_rows_bf16(z) if BF16_LOSS else bce_rows(z, e)
    spot = own[:, None] * width + b[None, :]
    tl.store(dz + spot, narrow(gradient, dz.dtype.element_ty), mask=inside[:, None])
    tl.store(loss + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(total))


@triton.jit(do_not_specialize=["first", "n_labels"])
def _add_positives(
    h, w, bias, label, row, dz, loss, first, n_labels, n_features, width,
    HP: tl.constexpr, BF16_LOSS: tl.constexpr,
):  # fmt: skip
    """The loss and dz of positive p = program_id, put right, if its label is of this slab."""
    p = tl.program_id(0)
    at = tl.load(label + p)
    here = (at >= first) & (at < n_labels)
    own = tl.where(here, at - first, 0).to(tl.int64)
    b = tl.load(row + p)
    c = tl.arange(0, HP)
    there = (c < n_features) & here
    weight = dequantize(tl.load(w + own * n_features + c, mask=there, other=0))
    x = tl.load(h + c * width + b, mask=there, other=0.0).to(tl.float32)
    z = tl.sum(weight * x) + tl.load(bias + at, mask=here, other=0.0).to(tl.float32)
    if BF16_LOSS:
        z = as_bf16(z)
    gradient, _ = sigmoid(z)
    if BF16_LOSS:
        gradient = as_bf16(as_bf16(gradient) - 1.0)
    else:
        gradient -= 1.0
    value = narrow(gradient, dz.dtype.element_ty)
    tl.store(dz + own * width + b, value, mask=here)
    tl.store(loss + p, -z, mask=here)


@triton.jit(do_not_specialize=["first", "seed", "step"])
def _update(
    h, w, mask, velocity, dz, first, n_labels, n_features, width,
    lr, momentum, decay, seed, step,
    LT: tl.constexpr, HT: tl.constexpr, BB: tl.constexpr, TILES: tl.constexpr,
    HAS_MASK: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """One tile [LT, HT] of the weights: dz times features, then SGD, in place."""
    lr = number(lr)
    step = number(step)
    own = tl.program_id(0).to(tl.int64) * LT + tl.arange(0, LT)
    rows = first + own
    inside = rows < n_labels
    start = tl.program_id(1) * HT
    c = start + tl.arange(0, HT)
    kept = inside[:, None] & (c < n_features)[None, :]
    gradient = tl.zeros([LT, HT], tl.float32)
    for tile in tl.range(0, TILES, num_stages=2):
        b = tile * BB + tl.arange(0, BB)
        d = tl.load(dz + own[:, None] * width + b[None, :], mask=inside[:, None], other=0.0)
        x = tl.load(h + c[:, None] * width + b[None, :], mask=(c < n_features)[:, None], other=0.0)
        gradient = tl.dot(d.to(DOT), tl.trans(x).to(DOT), gradient, input_precision=PRECISION)
    spot = rows[:, None] * n_features + c[None, :]
    if HAS_MASK:
        kept = kept & (tl.load(mask + spot, mask=kept, other=0) != 0)
    v = gradient
    if HAS_MOMENTUM:
        v = tl.load(velocity + spot, mask=kept, other=0.0).to(tl.float32)
    stored = tl.load(w + spot, mask=kept, other=0)
    new, v = sgd_update(dequantize(stored), v, gradient, lr, momentum, decay, HAS_MOMENTUM)
    noise = spot.to(tl.int32)
    if STOCHASTIC:
        full: tl.constexpr = HAS_MOMENTUM or w.dtype.element_ty == tl.uint8
        noise = noise_of(seed, step, rows, start, full, LT, HT, ROUNDS)
    store_rounded(w + spot, new, noise, kept, STOCHASTIC)
    if HAS_MOMENTUM:
        store_rounded(velocity + spot, v, noise >> 16, kept, STOCHASTIC)


@triton.jit(do_not_specialize=["first", "seed", "step"])
def _update_bias(
    bias, velocity, dz, first, n_labels, width, lr, momentum, decay, seed, step,
    R: tl.constexpr, W: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    ROUNDS: tl.constexpr,
):  # fmt: skip
    """The biases of R labels: SGD on the sum of dz over the batch."""
    lr = number(lr)
    step = number(step)
    own = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    rows = first + own
    inside = rows < n_labels
    gradient = tl.zeros([R], tl.float32)
    for start in range(0, width, W):
        b = start + tl.arange(0, W)
        there = inside[:, None] & (b < width)[None, :]
        spot = own[:, None] * width + b[None, :]
        gradient += tl.sum(tl.load(dz + spot, mask=there, other=0.0).to(tl.float32), 1)
    v = gradient
    if HAS_MOMENTUM:
        v = tl.load(velocity + rows, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(bias + rows, mask=inside, other=0.0).to(tl.float32)
    new, v = sgd_update(value, v, gradient, lr, momentum, decay, HAS_MOMENTUM)
    noise = rows.to(tl.int32)
    if STOCHASTIC:
        # biases draw behind the rows of weights
        noise = random_row(seed, step, n_labels + rows, ROUNDS)
    store_rounded(bias + rows, new, noise, inside, STOCHASTIC)
    if HAS_MOMENTUM:
        store_rounded(velocity + rows, v, noise >> 16, inside, STOCHASTIC)


@triton.jit(do_not_specialize=["first", "seed", "step"])
def _update_sampled(
    w, index, velocity, gradient, first, n_labels, n_features, lr, momentum, decay, seed, step,
    R: tl.constexpr, F: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    ROUNDS: tl.constexpr,
):  # fmt: skip
    """SGD on R rows of weights [L, F] whose gradient is read from [T, H] at their indices."""
    lr = number(lr)
    step = number(step)
    own = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    rows = first + own
    inside = (rows < n_labels)[:, None]
    spot = rows[:, None] * F + tl.arange(0, F)[None, :]
    at = tl.load(index + spot, mask=inside, other=0)
    g = tl.load(gradient + own[:, None] * n_features + at, mask=inside, other=0.0).to(tl.float32)
    v = g
    if HAS_MOMENTUM:
        v = tl.load(velocity + spot, mask=inside, other=0.0).to(tl.float32)
    stored = tl.load(w + spot, mask=inside, other=0)
    new, v = sgd_update(dequantize(stored), v, g, lr, momentum, decay, HAS_MOMENTUM)
    noise = spot.to(tl.int32)
    if STOCHASTIC:
        full: tl.constexpr = HAS_MOMENTUM or w.dtype.element_ty == tl.uint8
        noise = noise_of(seed, step, rows, 0, full, R, F, ROUNDS)
    store_rounded(w + spot, new, noise, inside, STOCHASTIC)
    if HAS_MOMENTUM:
        store_rounded(velocity + spot, v, noise >> 16, inside, STOCHASTIC)


class _Slabs:
    """What the two steps share: slabs of labels, their dz and loss, the bias's update."""

    def __init__(
        self,
        features: Tensor,
        state: LayerState,
        positives: Positives,
        context: StepContext,
        sgd: Sgd,
        slab: int,
        loss_dtype: torch.dtype,
    ) -> None:
        weight, bias = state.weight, state.bias
        self.batch, self.n_features = features.shape
        self.n_labels = len(weight)
        self.wide = weight.dtype == torch.float32
        self.label_tile = 64 if self.wide else 128
        self.tile, self.tiles = batch_tiles(self.batch, 32 if self.wide else 256)
        self.columns = transposed(features, weight.dtype, self.tile)
        self.width = self.columns.shape[1]
        self.dtype = self.columns.dtype
        self.features = features.to(self.dtype)
        self.bias, self.bias_momentum, self.positives = bias, state.bias_momentum, positives
        self.slab = max(1, slab // self.label_tile) * self.label_tile
        count = triton.cdiv(self.n_labels, self.label_tile)
        self.pairs = positives.label.numel()
        self.losses = torch.zeros(count * self.tiles + self.pairs, device=weight.device)
        size = min(self.slab, self.n_labels)
        self.dz = torch.empty(size, self.width, dtype=self.dtype, device=weight.device)
        self.grad = torch.zeros(features.shape, dtype=torch.float32, device=weight.device)
        self.numbers = (
            context.lr, sgd.momentum, sgd.weight_decay, context.seed, context.step
        )  # fmt: skip
        self.constants = {
            "HAS_MOMENTUM": state.momentum is not None,
            "STOCHASTIC": bias.dtype == torch.bfloat16 and sgd.rounding == "stochastic",
            "ROUNDS": PHILOX_ROUNDS,
        }
        self.products = {"DOT": dot_dtype(weight.dtype), "PRECISION": "ieee"}
        self.bf16_loss = loss_dtype == torch.bfloat16

    def spans(self) -> list[tuple[int, int]]:
        """First and last label of each slab."""
        edges = range(0, self.n_labels, self.slab)
        return [(first, min(first + self.slab, self.n_labels)) for first in edges]

    def gradient(self, first: int, last: int, rows: Tensor) -> Tensor:
        """dz [T, B] of a slab with weights `rows` [T, H] as stored; the sums take what they need of it."""
        count = last - first
        tiles = triton.cdiv(count, self.label_tile)
        _loss_and_gradient[(self.tiles, tiles)](
            self.columns, storage_view(rows), self.bias, self.dz,
            self.losses[first // self.label_tile * self.tiles :], first, last,
            self.n_features, self.batch, self.width,
            LT=self.label_tile, BB=self.tile, KT=32 if self.wide else 64,
            PADDED=self.width != self.batch, BF16_LOSS=self.bf16_loss, **self.products,
            num_warps=4 if self.wide else 8,
        )  # fmt: skip
        if self.pairs:
            _add_positives[(self.pairs,)](
                self.columns, storage_view(rows), self.bias, self.positives.label, self.positives.row,
                self.dz, self.losses[len(self.losses) - self.pairs :], first, last,
                self.n_features, self.width, HP=triton.next_power_of_2(self.n_features),
                BF16_LOSS=self.bf16_loss,
            )  # fmt: skip
        dz = self.dz[:count, : self.batch]
        scale = FP8_SCALE if rows.dtype == FP8 else 1.0
        self.grad.add_(product(dz.t(), rows.to(self.dtype)), alpha=scale)
        return dz

    def update_bias(self, first: int, last: int) -> None:
        """The slab's biases; not before its weights are done."""
        rows = 32
        _update_bias[(triton.cdiv(last - first, rows),)](
            self.bias, self.bias_momentum, self.dz, first, self.n_labels, self.width,
            *self.numbers, R=rows, W=min(64, triton.next_power_of_2(self.width)), **self.constants,
        )  # fmt: skip


def dense_step(
    features: Tensor,
    state: LayerState,
    positives: Positives,
    context: StepContext,
    sgd: Sgd,
    *,
    labels_per_chunk: int,
    mask: Tensor | None = None,
    loss_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Loss (fp32 scalar) and dX fp32 [B, H]; the layer is updated in place.

    features [B, H]; weight [L, H]; `mask` bool [L, H] keeps weights outside it as they are, at zero. A slab has at most
    `labels_per_chunk` labels, rounded to whole tiles. Rounding as in `group_step.group_step`.
    """
    weight = state.weight
    size = min(slab_labels(features.shape[0]), labels_per_chunk)
    if weight.dtype == FP8:
        # the features' gradient takes a copy of a slab's weights in bf16
        size = min(size, SLAB_BYTES // weight.shape[1])
    slabs = _Slabs(features, state, positives, context, sgd, size, loss_dtype)
    bits = None if mask is None else mask.view(torch.uint8)
    for first, last in slabs.spans():
        slabs.gradient(first, last, weight[first:last])
        feature_tile = 64 if slabs.wide else 128
        grid = (triton.cdiv(last - first, UPDATE_TILE), triton.cdiv(slabs.n_features, feature_tile))
        _update[grid](
            slabs.columns, storage_view(weight), bits, state.momentum, slabs.dz, first, slabs.n_labels,
            slabs.n_features, slabs.width, *slabs.numbers, LT=UPDATE_TILE, HT=feature_tile,
            BB=min(slabs.tile, 64), TILES=slabs.width // min(slabs.tile, 64), HAS_MASK=mask is not None,
            **slabs.constants, **slabs.products, num_warps=4,
        )  # fmt: skip
        slabs.update_bias(first, last)
    return slabs.losses.sum(), slabs.grad


def fixed_fan_in_step(
    features: Tensor,
    state: LayerState,
    index: Tensor,
    positives: Positives,
    context: StepContext,
    sgd: Sgd,
    *,
    unique: bool = False,
    loss_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """As `dense_step`, with an index set for each label: weight [L, F], index int32 [L, F].

    `unique` promises that no label names a feature twice.
    """
    weight = state.weight
    check_one_of("weight: fan-in", weight.shape[1], FAN_INS)
    n_features = features.shape[1]
    # densified weights and their gradient are [T, H], the latter fp32
    size = min(slab_labels(features.shape[0]), DENSE_BYTES // (4 * n_features))
    slabs = _Slabs(features, state, positives, context, sgd, size, loss_dtype)
    rows = 8
    for first, last in slabs.spans():
        dense = densify(
            weight[first:last], index[first:last], n_features, unique=unique, dtype=slabs.dtype
        )
        dw = product(slabs.gradient(first, last, dense), slabs.features)
        _update_sampled[(triton.cdiv(last - first, rows),)](
            storage_view(weight), index, state.momentum, dw, first, slabs.n_labels, n_features,
            *slabs.numbers, R=rows, F=weight.shape[1], **slabs.constants, num_warps=4,
        )  # fmt: skip
        slabs.update_bias(first, last)
    return slabs.losses.sum(), slabs.grad


def slab_labels(batch: int) -> int:
    """Labels of a slab of dense rows."""
    return SLAB_BYTES // (2 * batch)
