"""The fused step of dense rows in Triton, chunk by chunk of labels, without a B x L tensor.

The weights are read twice and written once. One kernel computes the logits of a chunk and from them loss and
dz [labels, B], puts in dz of the positives, which a kernel before it has multiplied, and updates the biases.
Another, persistent, reads each tile of the weights once for its part of dX, which it sums in registers, and
for dW, by which SGD changes them before dW is ever written. E4M3 weights are converted tile by tile. Of a
batch that does not fit in one tile, dX is a product by cuBLAS.

Fixed fan-in takes logits and dz by the same kernel, from weights that are densified to all features, and both
gradients by cuBLAS: on tensor cores that is faster than gathering for each label.
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
    num_sms,
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
MAX_BATCH_TILE = 256
"""documents whose logits a program computes at a time"""
LABEL_TILE, LOGITS_FEATURES, LOGITS_STAGES = 128, 64, 3
"""of the logits: labels of a program, features that are loaded at a time, loads in flight"""
UPDATE_LABELS, UPDATE_COLUMNS, UPDATE_STAGES = 64, 64, 3
"""of the update: labels and features of a tile, tiles in flight"""
SMALL_SUMS = 128 * 128
"""sums of a program of 8 warps, of which two fit on a multiprocessor with 128 registers a thread"""


@triton.jit
def _rows(AXIS: tl.constexpr, first, n_labels, BLOCK_L: tl.constexpr):
    """This program's rows of the chunk that begins at `first`, and of the layer, and which are labels."""
    chunk_rows = tl.program_id(AXIS).to(tl.int64) * BLOCK_L + tl.arange(0, BLOCK_L)
    rows = first + chunk_rows
    return chunk_rows, rows, rows < n_labels


@triton.jit(do_not_specialize=["first", "last"])
def _positives(
    x_ptr, w_ptr, bias_ptr, label_ptr, doc_ptr, value_ptr, loss_ptr, first, last, n_features,
    PADDED_H: tl.constexpr, BF16_LOSS: tl.constexpr,
):  # fmt: skip
    """dz of positive p = program_id, and what the loss is more than a negative's, if its label is one of
    first..last, whose weights begin at `w_ptr`."""
    p = tl.program_id(0)
    label = tl.load(label_ptr + p)
    in_chunk = (label >= first) & (label < last)
    row = tl.where(in_chunk, label - first, 0).to(tl.int64)
    c = tl.arange(0, PADDED_H)
    mask = (c < n_features) & in_chunk
    weight = dequantize(tl.load(w_ptr + row * n_features + c, mask=mask, other=0))
    b = tl.load(doc_ptr + p)
    x = tl.load(x_ptr + b * n_features + c, mask=mask, other=0.0).to(tl.float32)
    z = tl.sum(weight * x) + tl.load(bias_ptr + label, mask=in_chunk, other=0.0).to(tl.float32)
    if BF16_LOSS:
        z = round_to_bf16(z)
    dz, _ = sigmoid(z)
    if BF16_LOSS:
        dz = round_to_bf16(round_to_bf16(dz) - 1.0)
    else:
        dz -= 1.0
    tl.store(value_ptr + p, cast(dz, value_ptr.dtype.element_ty), mask=in_chunk)
    tl.store(loss_ptr + p, -z, mask=in_chunk)


@triton.jit(do_not_specialize=["first", "last", "seed", "step", "first_row", "total_rows"])
def _loss_and_dz(
    x_ptr, w_ptr, bias_ptr, momentum_ptr, dz_ptr, loss_ptr, label_ptr, doc_ptr, value_ptr, bound_ptr,
    first, last, n_features, batch, width, lr, momentum, decay, seed, step, first_row, total_rows,
    BLOCK_L: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, NUM_TILES: tl.constexpr,
    EVEN: tl.constexpr, STAGES: tl.constexpr, PADDED: tl.constexpr, HAS_POSITIVES: tl.constexpr,
    BF16_LOSS: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """dz [T, Bp] and the loss of a tile of the chunk of labels first..last; their biases are updated.

    EVEN: BLOCK_H divides the features. The positives of the layer's tile t are bound[t]..bound[t + 1].
    """
    lr = load_scalar(lr)
    step = load_scalar(step)
    chunk_rows, rows, inside = _rows(0, first, last, BLOCK_L)
    # rows beyond the last label read its weights: a mask would cost more
    within = tl.minimum(chunk_rows, last - first - 1)
    bias = tl.load(bias_ptr + rows, mask=inside, other=0.0).to(tl.float32)
    tile = first // BLOCK_L + tl.program_id(0)
    for part in tl.static_range(NUM_TILES):
        b = part * BLOCK_B + tl.arange(0, BLOCK_B)
        z = tl.zeros([BLOCK_L, BLOCK_B], tl.float32)
        for start in tl.range(0, n_features, BLOCK_H, num_stages=STAGES):
            c = start + tl.arange(0, BLOCK_H)
            real = (c < n_features) | EVEN
            weight = tl.load(
                w_ptr + within[:, None] * n_features + c[None, :], mask=real[None, :], other=0
            )
            x = tl.load(x_ptr + c[:, None] * width + b[None, :], mask=real[:, None], other=0.0)
            z = tl.dot(
                to_dot_dtype(weight, DOT_DTYPE), x.to(DOT_DTYPE), z, input_precision=PRECISION
            )
        z += tl.where(inside, bias, -1e30)[:, None]
        _, dz, loss = bce_of_negatives(z, b, batch, PADDED, BF16_LOSS)
        offsets = chunk_rows[:, None] * width + b[None, :]
        tl.store(dz_ptr + offsets, cast(dz, dz_ptr.dtype.element_ty), mask=inside[:, None])
        tl.store(loss_ptr + tile * NUM_TILES + part, tl.sum(loss))
    tl.debug_barrier()
    if HAS_POSITIVES:
        end = tl.load(bound_ptr + tile + 1)
        for begin in range(tl.load(bound_ptr + tile), end, 128):
            p = begin + tl.arange(0, 128)
            label = tl.load(label_ptr + p, mask=p < end, other=0)
            entries = (label - first).to(tl.int64) * width + tl.load(
                doc_ptr + p, mask=p < end, other=0
            )
            tl.store(dz_ptr + entries, tl.load(value_ptr + p, mask=p < end), mask=p < end)
        tl.debug_barrier()
    db = tl.zeros([BLOCK_L], tl.float32)
    block: tl.constexpr = 64 if BLOCK_B > 64 else BLOCK_B
    for begin in range(0, width, block):
        d = tl.load(
            dz_ptr + chunk_rows[:, None] * width + begin + tl.arange(0, block)[None, :],
            mask=inside[:, None], other=0.0,
        )  # fmt: skip
        db += tl.sum(d.to(tl.float32), 1)
    v = load_momentum(momentum_ptr, rows, inside, db, HAS_MOMENTUM)
    new, v = sgd_update(bias, v, db, lr, momentum, decay, HAS_MOMENTUM)
    noise = rows.to(tl.int32)
    if STOCHASTIC:
        # after the random numbers of the weights' rows
        noise = random_row(seed, step, rows + first_row + total_rows, ROUNDS)
    store_update(bias_ptr, momentum_ptr, rows, new, v, noise, inside, HAS_MOMENTUM, STOCHASTIC)


@triton.jit
def _update_tile(
    w_ptr, momentum_ptr, rows, start, offsets, mask, weight, v, dw, lr, momentum, decay, seed, step, first_row,
    BLOCK_L: tl.constexpr, COLUMNS: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    ROUNDS: tl.constexpr,
):  # fmt: skip
    """SGD on stored weights and momenta [BLOCK_L, COLUMNS] from `offsets`, which are of `rows` from column
    `start` on; row 0 is row `first_row` of the whole layer."""
    new, v = sgd_update(dequantize(weight), v.to(tl.float32), dw, lr, momentum, decay, HAS_MOMENTUM)
    noise = offsets.to(tl.int32)
    if STOCHASTIC:
        full: tl.constexpr = HAS_MOMENTUM or w_ptr.dtype.element_ty == tl.uint8
        noise = rounding_noise(seed, step, rows + first_row, start, full, BLOCK_L, COLUMNS, ROUNDS)
    store_update(w_ptr, momentum_ptr, offsets, new, v, noise, mask, HAS_MOMENTUM, STOCHASTIC)


@triton.jit
def _load_tile(
    w_ptr, momentum_ptr, dz_ptr, tile, first, last, c, real, b, n_features, width,
    BLOCK_L: tl.constexpr, HAS_MOMENTUM: tl.constexpr, ONE_TILE: tl.constexpr,
):  # fmt: skip
    """Stored weights and momenta of a tile of labels and the columns c, and their dz if it is ONE_TILE."""
    chunk_rows = tile * BLOCK_L + tl.arange(0, BLOCK_L).to(tl.int64)
    inside = (first + chunk_rows < last)[:, None]
    within = tl.minimum(first + chunk_rows, last - 1)
    offsets = within[:, None] * n_features + c[None, :]
    weight = tl.load(w_ptr + offsets, mask=real[None, :], other=0)
    v = weight
    if HAS_MOMENTUM:
        v = tl.load(momentum_ptr + offsets, mask=real[None, :], other=0.0)
    dz = weight
    if ONE_TILE:
        dz = tl.load(dz_ptr + chunk_rows[:, None] * width + b[None, :], mask=inside, other=0.0)
    return weight, v, dz


@triton.jit(do_not_specialize=["first", "last", "seed", "step", "first_row"])
def _update(
    x_ptr, w_ptr, mask_ptr, momentum_ptr, dz_ptr, dx_ptr, first, last, n_features, width,
    lr, momentum, decay, seed, step, first_row,
    BLOCK_L: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    EVEN: tl.constexpr, STAGES: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """dX and SGD in place for a slice of BLOCK_H features and every n-th tile of the labels first..last.

    The kernel is persistent: of each of its tiles the part of dX is added to a sum in registers before SGD changes the
    weights, and the next tile is loaded meanwhile. The sums of each program are in dx [programs, Bp, H]. If the
    batch has several tiles, dX is left to the caller.
    """
    lr = load_scalar(lr)
    step = load_scalar(step)
    start = tl.program_id(0) * BLOCK_H
    c = start + tl.arange(0, BLOCK_H)
    b = tl.arange(0, BLOCK_B)
    real = (c < n_features) | EVEN
    one_tile: tl.constexpr = NUM_TILES == 1
    places = (tl.program_id(1) * width + b)[:, None] * n_features + c[None, :]
    if one_tile:
        x = tl.load(x_ptr + c[:, None] * width + b[None, :], mask=real[:, None], other=0.0)
        x = tl.trans(x).to(DOT_DTYPE)
        dx = tl.load(dx_ptr + places, mask=real[None, :] & (first > 0), other=0.0)
    for tile in tl.range(
        tl.program_id(1), tl.cdiv(last - first, BLOCK_L), tl.num_programs(1), num_stages=STAGES
    ):
        weight, v, dz = _load_tile(
            w_ptr, momentum_ptr, dz_ptr, tile, first, last, c, real, b, n_features, width,
            BLOCK_L, HAS_MOMENTUM, one_tile,
        )  # fmt: skip
        chunk_rows = tile * BLOCK_L + tl.arange(0, BLOCK_L).to(tl.int64)
        rows = first + chunk_rows
        kept = (rows < last)[:, None] & real[None, :]
        dw = tl.zeros([BLOCK_L, BLOCK_H], tl.float32)
        if one_tile:
            d = dz.to(DOT_DTYPE)
            dx = tl.dot(tl.trans(d), to_dot_dtype(weight, DOT_DTYPE), dx, input_precision=PRECISION)
            dw = tl.dot(d, x, dw, input_precision=PRECISION)
        else:
            for part in tl.range(0, NUM_TILES, num_stages=2):
                columns = part * BLOCK_B + b
                d = tl.load(
                    dz_ptr + chunk_rows[:, None] * width + columns[None, :],
                    mask=(rows < last)[:, None], other=0.0,
                )  # fmt: skip
                x = tl.load(
                    x_ptr + c[:, None] * width + columns[None, :], mask=real[:, None], other=0.0
                )
                x = tl.trans(x).to(DOT_DTYPE)
                dw = tl.dot(d.to(DOT_DTYPE), x, dw, input_precision=PRECISION)
        offsets = rows[:, None] * n_features + c[None, :]
        if HAS_MASK:
            kept = kept & (tl.load(mask_ptr + offsets, mask=kept, other=0) != 0)
        _update_tile(
            w_ptr, momentum_ptr, rows, start, offsets, kept, weight, v, dw, lr, momentum, decay, seed, step,
            first_row, BLOCK_L, BLOCK_H, HAS_MOMENTUM, STOCHASTIC, ROUNDS,
        )  # fmt: skip
    if one_tile:
        tl.store(dx_ptr + places, dx, mask=real[None, :])


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
    v = load_momentum(momentum_ptr, offsets, inside, dw, HAS_MOMENTUM)
    weight = tl.load(w_ptr + offsets, mask=inside, other=0)
    _update_tile(
        w_ptr, momentum_ptr, rows, 0, offsets, inside, weight, v, dw, lr, momentum, decay, seed, step, first_row,
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
        self.label_tile = 64 if self.wide else LABEL_TILE
        self.tile, self.tiles = batch_tiles(self.batch, 32 if self.wide else MAX_BATCH_TILE)
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
        self.positive_dz = torch.empty(self.pairs, dtype=self.dtype, device=weight.device)
        borders = torch.arange(count + 1, dtype=torch.int32, device=weight.device)
        # positives beyond the last label are of another part
        borders = (borders * self.label_tile).clamp_(max=self.n_labels)
        self.bounds = torch.searchsorted(positives.label_row, borders, out_int32=True)
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

    def multiply_positives(self, labels: slice, rows: Tensor) -> None:
        """dz and loss of the positives of `labels`, whose stored weights are `rows`."""
        if self.pairs:
            _positives[(self.pairs,)](
                self.features, storage_view(rows), self.bias, self.positives.label_row, self.positives.doc,
                self.positive_dz, self.losses[len(self.losses) - self.pairs :], labels.start, labels.stop,
                self.n_features, PADDED_H=triton.next_power_of_2(self.n_features),
                BF16_LOSS=self.bf16_loss,
            )  # fmt: skip

    def backward(self, labels: slice, rows: Tensor) -> Tensor:
        """dz [T, B] of a chunk with stored weights `rows` [T, H]; its loss is added, its biases are updated.

        `multiply_positives` comes before, because it reads the biases.
        """
        count = labels.stop - labels.start
        block = 32 if self.wide else LOGITS_FEATURES
        _loss_and_dz[(triton.cdiv(count, self.label_tile),)](
            self.columns, storage_view(rows), self.bias, self.bias_momentum, self.dz, self.losses,
            self.positives.label_row, self.positives.doc, self.positive_dz, self.bounds,
            labels.start, labels.stop, self.n_features, self.batch, self.width, *self.scalars,
            self.total_rows, BLOCK_L=self.label_tile, BLOCK_B=self.tile, BLOCK_H=block,
            NUM_TILES=self.tiles, EVEN=self.n_features % block == 0, STAGES=LOGITS_STAGES,
            PADDED=self.width != self.batch, HAS_POSITIVES=self.pairs > 0, BF16_LOSS=self.bf16_loss,
            **self.constants, **self.products, **_warps(self.label_tile * self.tile, SMALL_SUMS, self.wide),
        )  # fmt: skip
        return self.dz[:count, : self.batch]


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
    chunks = _Chunks(features, state, positives, context, sgd, size, loss_dtype)
    n_features, batch_tile = chunks.n_features, chunks.tile
    bits = None if mask is None else mask.view(torch.uint8)
    # then dx has the sums of each program
    one_tile = chunks.tiles == 1
    block = UPDATE_COLUMNS
    slices = triton.cdiv(n_features, block)
    warps = _update_warps(batch_tile, weight)
    programs = triton.cdiv(num_sms(weight.device) * (2 if "maxnreg" in warps else 1), slices)
    programs = min(programs, triton.cdiv(len(chunks.dz), UPDATE_LABELS))
    if one_tile:
        dx = torch.empty(programs, chunks.width, n_features, device=weight.device)
    else:
        dx = torch.zeros(features.shape, dtype=torch.float32, device=weight.device)
    chunks.multiply_positives(slice(0, chunks.n_labels), weight)
    for labels in chunks.spans():
        dz = chunks.backward(labels, weight[labels])
        if not one_tile:
            _add_dx(dx, dz, weight[labels])
        _update[(slices, programs)](
            chunks.columns, storage_view(weight), bits, state.momentum, chunks.dz, dx, labels.start, labels.stop,
            n_features, chunks.width, *chunks.scalars, BLOCK_L=UPDATE_LABELS, BLOCK_H=block, BLOCK_B=batch_tile,
            NUM_TILES=chunks.tiles, EVEN=n_features % block == 0, STAGES=UPDATE_STAGES, HAS_MASK=mask is not None,
            **chunks.constants, **chunks.products, **warps,
        )  # fmt: skip
    if one_tile:
        dx = dx[:, : chunks.batch].sum(0)
    return chunks.losses.sum(), dx


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
    dx = torch.zeros(features.shape, dtype=torch.float32, device=weight.device)
    rows = 8
    for labels in chunks.spans():
        dense = densify(
            weight[labels], index[labels], n_features, unique=unique, dtype=chunks.dtype
        )
        chunks.multiply_positives(labels, dense)
        dz = chunks.backward(labels, dense)
        _add_dx(dx, dz, dense)
        dw = product(dz, chunks.features)
        _update_gathered[(triton.cdiv(len(dw), rows),)](
            storage_view(weight), index, state.momentum, dw, labels.start, chunks.n_labels, n_features,
            *chunks.scalars, BLOCK_L=rows, F=weight.shape[1], **chunks.constants, num_warps=4,
        )  # fmt: skip
    return chunks.losses.sum(), dx


def _add_dx(dx: Tensor, dz: Tensor, weight: Tensor) -> None:
    """Add dz [T, B] times stored weights [T, H] to dX fp32 [B, H]."""
    if weight.dtype != FP8:
        dx.add_(product(dz.t(), weight))
        return
    # in parts, because they are copied to bf16
    for rows in tiles(len(weight), max(1, CHUNK_BYTES // weight.shape[1])):
        dx.add_(product(dz[rows].t(), weight[rows].to(dz.dtype)), alpha=FP8_SCALE)


def _warps(sums: int, most: int, wide: bool) -> dict[str, int]:
    """Options of a launch whose programs keep `sums` fp32 sums: up to `most` two fit on a multiprocessor."""
    if wide:
        return {"num_warps": 4}
    return {"num_warps": 8, "maxnreg": 128} if sums <= most else {"num_warps": 8}


def _update_warps(batch_tile: int, weight: Tensor) -> dict[str, int]:
    """As `_warps`, of the update: one that multiplies and rounds more for each byte has 4 warps."""
    sums = batch_tile * UPDATE_COLUMNS
    if sums <= SMALL_SUMS // 2 and batch_tile >= 64 * weight.element_size():
        return {"num_warps": 4, "maxnreg": 255}
    return _warps(sums, SMALL_SUMS // 2, weight.dtype == torch.float32)


def most_labels_per_chunk(batch: int) -> int:
    """Labels whose dz takes CHUNK_BYTES."""
    return CHUNK_BYTES // (2 * batch)
