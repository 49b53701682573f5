"""The fused step of dense rows in Triton, chunk by chunk of labels, without a B x L tensor.

One kernel computes the logits of a chunk and from them loss and dz [labels, B]; dX, dz times the weights,
is a product by cuBLAS; another kernel computes dW tile by tile and updates the weights with it before it is
ever written. Fixed fan-in does the same with weights that are densified to all features: on tensor cores
that is faster than gathering for each label.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels.checks import check_one_of
from haste.kernels.rounding import FP8, FP8_SCALE, storage_view
from haste.kernels.state import FAN_INS, LayerState, Positives, Sgd, StepContext, tiles
from haste.kernels.triton.common import (
    PHILOX_ROUNDS,
    batch_tiles,
    bce_of_negatives,
    cast,
    dequantize,
    dot_dtype,
    load_momentum,
    load_scalar,
    padded_columns,
    product,
    random_row,
    round_to_bf16,
    rounding_noise,
    sgd_update,
    sigmoid,
    store_update,
    to_dot_dtype,
)
from haste.kernels.triton.densify import densify

CHUNK_BYTES = 32 << 20
"""of dz for a chunk of labels"""
DENSE_BYTES = 256 << 20
"""of the fp32 gradient of a chunk's densified weights"""
UPDATE_TILE = 64
"""labels per program of the update"""


@triton.jit
def _rows(AXIS: tl.constexpr, first, n_labels, BLOCK_L: tl.constexpr):
    """This program's rows of the chunk that begins at `first`, and of the layer, and which are labels."""
    chunk_rows = tl.program_id(AXIS).to(tl.int64) * BLOCK_L + tl.arange(0, BLOCK_L)
    rows = first + chunk_rows
    return chunk_rows, rows, rows < n_labels


@triton.jit(do_not_specialize=["first", "n_labels"])
def _loss_and_dz(
    x_ptr, w_ptr, bias_ptr, dz_ptr, loss_ptr, first, n_labels, n_features, batch, width,
    BLOCK_L: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, PADDED: tl.constexpr,
    BF16_LOSS: tl.constexpr, DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dz [T, Bp] and the loss of a tile of labels, of the chunk that begins at `first`, and of the batch,
    as if all labels were negative."""
    chunk_rows, rows, inside = _rows(1, first, n_labels, BLOCK_L)
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    z = tl.zeros([BLOCK_L, BLOCK_B], tl.float32)
    for start in tl.range(0, n_features, BLOCK_H, num_stages=3):
        c = start + tl.arange(0, BLOCK_H)
        mask = (c < n_features)[None, :] & inside[:, None]
        weight = tl.load(w_ptr + chunk_rows[:, None] * n_features + c[None, :], mask=mask, other=0)
        x = tl.load(
            x_ptr + c[:, None] * width + b[None, :], mask=(c < n_features)[:, None], other=0.0
        )
        z = tl.dot(to_dot_dtype(weight, DOT_DTYPE), x.to(DOT_DTYPE), z, input_precision=PRECISION)
    bias = tl.load(bias_ptr + rows, mask=inside, other=0.0).to(tl.float32)
    z += tl.where(inside, bias, -1e30)[:, None]
    _, dz, loss = bce_of_negatives(z, b, batch, PADDED, BF16_LOSS)
    offsets = chunk_rows[:, None] * width + b[None, :]
    tl.store(dz_ptr + offsets, cast(dz, dz_ptr.dtype.element_ty), mask=inside[:, None])
    tl.store(loss_ptr + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(loss))


@triton.jit(do_not_specialize=["first", "n_labels"])
def _add_positives(
    x_ptr, w_ptr, bias_ptr, label_ptr, doc_ptr, dz_ptr, loss_ptr, first, n_labels, n_features, width,
    PADDED_H: tl.constexpr, BF16_LOSS: tl.constexpr,
):  # fmt: skip
    """Correct the loss and dz of positive p = program_id, if its label is in the chunk first..n_labels."""
    p = tl.program_id(0)
    label = tl.load(label_ptr + p)
    in_chunk = (label >= first) & (label < n_labels)
    row = tl.where(in_chunk, label - first, 0).to(tl.int64)
    b = tl.load(doc_ptr + p)
    c = tl.arange(0, PADDED_H)
    mask = (c < n_features) & in_chunk
    weight = dequantize(tl.load(w_ptr + row * n_features + c, mask=mask, other=0))
    x = tl.load(x_ptr + c * width + b, mask=mask, other=0.0).to(tl.float32)
    z = tl.sum(weight * x) + tl.load(bias_ptr + label, mask=in_chunk, other=0.0).to(tl.float32)
    if BF16_LOSS:
        z = round_to_bf16(z)
    dz, _ = sigmoid(z)
    if BF16_LOSS:
        dz = round_to_bf16(round_to_bf16(dz) - 1.0)
    else:
        dz -= 1.0
    value = cast(dz, dz_ptr.dtype.element_ty)
    tl.store(dz_ptr + row * width + b, value, mask=in_chunk)
    tl.store(loss_ptr + p, -z, mask=in_chunk)


@triton.jit
def _update_tile(
    w_ptr, momentum_ptr, rows, start, offsets, mask, dw, lr, momentum, decay, seed, step, first_row,
    BLOCK_L: tl.constexpr, COLUMNS: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    ROUNDS: tl.constexpr,
):  # fmt: skip
    """SGD on weights [BLOCK_L, COLUMNS] at `offsets`, which are of `rows` from column `start` on; row 0 is
    row `first_row` of the whole layer."""
    v = load_momentum(momentum_ptr, offsets, mask, dw, HAS_MOMENTUM)
    value = dequantize(tl.load(w_ptr + offsets, mask=mask, other=0))
    new, v = sgd_update(value, v, dw, lr, momentum, decay, HAS_MOMENTUM)
    noise = offsets.to(tl.int32)
    if STOCHASTIC:
        full: tl.constexpr = HAS_MOMENTUM or w_ptr.dtype.element_ty == tl.uint8
        noise = rounding_noise(seed, step, rows + first_row, start, full, BLOCK_L, COLUMNS, ROUNDS)
    store_update(w_ptr, momentum_ptr, offsets, new, v, noise, mask, HAS_MOMENTUM, STOCHASTIC)


@triton.jit(do_not_specialize=["first", "seed", "step", "first_row"])
def _update(
    x_ptr, w_ptr, mask_ptr, momentum_ptr, dz_ptr, first, n_labels, n_features, width,
    lr, momentum, decay, seed, step, first_row,
    BLOCK_L: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    HAS_MASK: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """One tile [BLOCK_L, BLOCK_H] of the weights: dz times features, then SGD, in place."""
    lr = load_scalar(lr)
    step = load_scalar(step)
    chunk_rows, rows, inside = _rows(0, first, n_labels, BLOCK_L)
    start = tl.program_id(1) * BLOCK_H
    c = start + tl.arange(0, BLOCK_H)
    kept = inside[:, None] & (c < n_features)[None, :]
    dw = tl.zeros([BLOCK_L, BLOCK_H], tl.float32)
    for tile in tl.range(0, NUM_TILES, num_stages=2):
        b = tile * BLOCK_B + tl.arange(0, BLOCK_B)
        d = tl.load(
            dz_ptr + chunk_rows[:, None] * width + b[None, :], mask=inside[:, None], other=0.0
        )
        x = tl.load(
            x_ptr + c[:, None] * width + b[None, :], mask=(c < n_features)[:, None], other=0.0
        )
        dw = tl.dot(d.to(DOT_DTYPE), tl.trans(x).to(DOT_DTYPE), dw, input_precision=PRECISION)
    offsets = rows[:, None] * n_features + c[None, :]
    if HAS_MASK:
        kept = kept & (tl.load(mask_ptr + offsets, mask=kept, other=0) != 0)
    _update_tile(
        w_ptr, momentum_ptr, rows, start, offsets, kept, dw, lr, momentum, decay, seed, step, first_row,
        BLOCK_L, BLOCK_H, HAS_MOMENTUM, STOCHASTIC, ROUNDS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["first", "seed", "step", "first_row", "total_rows"])
def _update_bias(
    bias_ptr, momentum_ptr, dz_ptr, first, n_labels, width, lr, momentum, decay, seed, step,
    first_row, total_rows,
    BLOCK_L: tl.constexpr, BLOCK_B: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    ROUNDS: tl.constexpr,
):  # fmt: skip
    """The biases of BLOCK_L labels: SGD on the sum of dz over the batch."""
    lr = load_scalar(lr)
    step = load_scalar(step)
    chunk_rows, rows, inside = _rows(0, first, n_labels, BLOCK_L)
    db = tl.zeros([BLOCK_L], tl.float32)
    for start in range(0, width, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        mask = inside[:, None] & (b < width)[None, :]
        offsets = chunk_rows[:, None] * width + b[None, :]
        db += tl.sum(tl.load(dz_ptr + offsets, mask=mask, other=0.0).to(tl.float32), 1)
    v = load_momentum(momentum_ptr, rows, inside, db, HAS_MOMENTUM)
    value = tl.load(bias_ptr + rows, mask=inside, other=0.0).to(tl.float32)
    new, v = sgd_update(value, v, db, lr, momentum, decay, HAS_MOMENTUM)
    noise = rows.to(tl.int32)
    if STOCHASTIC:
        # after the random numbers of the weights' rows
        noise = random_row(seed, step, rows + first_row + total_rows, ROUNDS)
    store_update(bias_ptr, momentum_ptr, rows, new, v, noise, inside, HAS_MOMENTUM, STOCHASTIC)


@triton.jit(do_not_specialize=["first", "seed", "step", "first_row"])
def _update_gathered(
    w_ptr, index_ptr, momentum_ptr, dw_ptr, first, n_labels, n_features, lr, momentum, decay, seed, step,
    first_row,
    BLOCK_L: tl.constexpr, F: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    ROUNDS: tl.constexpr,
):  # fmt: skip
    """SGD on BLOCK_L rows of weights [L, F] whose dw is read from [T, H] at their indices."""
    lr = load_scalar(lr)
    step = load_scalar(step)
    chunk_rows, rows, is_label = _rows(0, first, n_labels, BLOCK_L)
    inside = is_label[:, None]
    offsets = rows[:, None] * F + tl.arange(0, F)[None, :]
    idx = tl.load(index_ptr + offsets, mask=inside, other=0)
    dw = tl.load(dw_ptr + chunk_rows[:, None] * n_features + idx, mask=inside, other=0.0).to(
        tl.float32
    )
    _update_tile(
        w_ptr, momentum_ptr, rows, 0, offsets, inside, dw, lr, momentum, decay, seed, step, first_row,
        BLOCK_L, F, HAS_MOMENTUM, STOCHASTIC, ROUNDS,
    )  # fmt: skip


class _Chunks:
    """What the two steps share: chunks of labels, their dz and loss, the update of the biases."""

    def __init__(
        self,
        features: Tensor,
        state: LayerState,
        positives: Positives[Tensor],
        context: StepContext,
        sgd: Sgd,
        labels_per_chunk: int,
        loss_dtype: torch.dtype,
    ) -> None:
        weight, bias = state.weight, state.bias
        self.batch, self.n_features = features.shape
        self.n_labels, self.total_rows = len(weight), state.total_rows
        self.wide = weight.dtype == torch.float32
        self.label_tile = 64 if self.wide else 128
        self.tile, self.tiles = batch_tiles(self.batch, 32 if self.wide else 256)
        self.columns = padded_columns(features, weight.dtype, self.tile)
        self.width = self.columns.shape[1]
        self.dtype = self.columns.dtype
        self.features = features.to(self.dtype)
        self.bias, self.bias_momentum, self.positives = bias, state.bias_momentum, positives
        self.labels_per_chunk = max(1, labels_per_chunk // self.label_tile) * self.label_tile
        count = triton.cdiv(self.n_labels, self.label_tile)
        self.pairs = positives.label_row.numel()
        self.losses = torch.zeros(count * self.tiles + self.pairs, device=weight.device)
        size = min(self.labels_per_chunk, self.n_labels)
        self.dz = torch.empty(size, self.width, dtype=self.dtype, device=weight.device)
        self.dx = torch.zeros(features.shape, dtype=torch.float32, device=weight.device)
        self.scalars = (
            context.lr, sgd.momentum, sgd.weight_decay, context.seed, context.step,
            state.first_row,
        )  # fmt: skip
        self.constants = {
            "HAS_MOMENTUM": state.momentum is not None,
            "STOCHASTIC": bias.dtype == torch.bfloat16 and sgd.rounding == "stochastic",
            "ROUNDS": PHILOX_ROUNDS,
        }
        self.products = {"DOT_DTYPE": dot_dtype(weight.dtype), "PRECISION": "ieee"}
        self.bf16_loss = loss_dtype == torch.bfloat16

    def spans(self) -> list[slice]:
        """Of the labels of each chunk."""
        return tiles(self.n_labels, self.labels_per_chunk)

    def backward(self, labels: slice, rows: Tensor) -> Tensor:
        """dz [T, B] of a chunk with stored weights `rows` [T, H]; its part is added to loss and dX."""
        first, last = labels.start, labels.stop
        count = last - first
        label_tiles = triton.cdiv(count, self.label_tile)
        _loss_and_dz[(self.tiles, label_tiles)](
            self.columns, storage_view(rows), self.bias, self.dz,
            self.losses[first // self.label_tile * self.tiles :], first, last,
            self.n_features, self.batch, self.width,
            BLOCK_L=self.label_tile, BLOCK_B=self.tile, BLOCK_H=32 if self.wide else 64,
            PADDED=self.width != self.batch, BF16_LOSS=self.bf16_loss, **self.products,
            num_warps=4 if self.wide else 8,
        )  # fmt: skip
        if self.pairs:
            _add_positives[(self.pairs,)](
                self.columns, storage_view(rows), self.bias, self.positives.label_row, self.positives.doc,
                self.dz, self.losses[len(self.losses) - self.pairs :], first, last,
                self.n_features, self.width, PADDED_H=triton.next_power_of_2(self.n_features),
                BF16_LOSS=self.bf16_loss,
            )  # fmt: skip
        dz = self.dz[:count, : self.batch]
        scale = FP8_SCALE if rows.dtype == FP8 else 1.0
        self.dx.add_(product(dz.t(), rows.to(self.dtype)), alpha=scale)
        return dz

    def update_bias(self, labels: slice) -> None:
        """Update the biases of a chunk, after its weights."""
        rows = 32
        _update_bias[(triton.cdiv(labels.stop - labels.start, rows),)](
            self.bias, self.bias_momentum, self.dz, labels.start, self.n_labels, self.width,
            *self.scalars, self.total_rows, BLOCK_L=rows, BLOCK_B=min(64, triton.next_power_of_2(self.width)),
            **self.constants,
        )  # fmt: skip


def dense_step(
    features: Tensor,
    state: LayerState,
    positives: Positives[Tensor],
    context: StepContext,
    sgd: Sgd,
    *,
    labels_per_chunk: int,
    mask: Tensor | None = None,
    loss_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Loss (fp32 scalar) and dX fp32 [B, H]; the layer is updated in place.

    features [B, H]; weight [L, H]; `mask` bool [L, H]: weights outside it are not changed and must be zero.
    A chunk has at most `labels_per_chunk` labels, rounded to whole tiles. Rounding as in `group_step.group_step`.
    """
    weight = state.weight
    size = min(most_labels_per_chunk(features.shape[0]), labels_per_chunk)
    if weight.dtype == FP8:
        # dX needs a copy of a chunk's weights in bf16
        size = min(size, CHUNK_BYTES // weight.shape[1])
    chunks = _Chunks(features, state, positives, context, sgd, size, loss_dtype)
    bits = None if mask is None else mask.view(torch.uint8)
    for labels in chunks.spans():
        chunks.backward(labels, weight[labels])
        feature_tile = 64 if chunks.wide else 128
        grid = (
            triton.cdiv(labels.stop - labels.start, UPDATE_TILE),
            triton.cdiv(chunks.n_features, feature_tile),
        )
        _update[grid](
            chunks.columns, storage_view(weight), bits, state.momentum, chunks.dz, labels.start, chunks.n_labels,
            chunks.n_features, chunks.width, *chunks.scalars, BLOCK_L=UPDATE_TILE, BLOCK_H=feature_tile,
            BLOCK_B=min(chunks.tile, 64), NUM_TILES=chunks.width // min(chunks.tile, 64), HAS_MASK=mask is not None,
            **chunks.constants, **chunks.products, num_warps=4,
        )  # fmt: skip
        chunks.update_bias(labels)
    return chunks.losses.sum(), chunks.dx


def fixed_fan_in_step(
    features: Tensor,
    state: LayerState,
    index: Tensor,
    positives: Positives[Tensor],
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
    size = min(most_labels_per_chunk(features.shape[0]), DENSE_BYTES // (4 * n_features))
    chunks = _Chunks(features, state, positives, context, sgd, size, loss_dtype)
    rows = 8
    for labels in chunks.spans():
        dense = densify(
            weight[labels], index[labels], n_features, unique=unique, dtype=chunks.dtype
        )
        dw = product(chunks.backward(labels, dense), chunks.features)
        _update_gathered[(triton.cdiv(len(dw), rows),)](
            storage_view(weight), index, state.momentum, dw, labels.start, chunks.n_labels, n_features,
            *chunks.scalars, BLOCK_L=rows, F=weight.shape[1], **chunks.constants, num_warps=4,
        )  # fmt: skip
        chunks.update_bias(labels)
    return chunks.losses.sum(), chunks.dx


def most_labels_per_chunk(batch: int) -> int:
    """Labels whose dz takes CHUNK_BYTES."""
    return CHUNK_BYTES // (2 * batch)
