"""The fused step of the group-shared layer in Triton: one pass over the weights, no B x L tensor.

Features are transposed, [H, Bp] with the batch innermost and padded with zeros, so the values of a feature
are contiguous. Kernels are persistent: each program processes a contiguous range of groups and copies the
features of the next group to shared memory meanwhile. A group's features are gathered once for its logits,
the loss, both gradients and the update.

dX takes one of two routes (`route`). Atomics: each group adds its part to one of COPIES copies of [H, Bp].
Densify: the step goes chunk by chunk of labels, keeps dz and the weights from before the update, and
multiplies them as if dense (`densify`); the order of its sums is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.errors import KernelError
from haste.kernels.checks import check_one_of
from haste.kernels.rounding import FP8, storage_view
from haste.kernels.state import FAN_INS, GROUP_SIZES, LayerState, Positives, Sgd, StepContext
from haste.kernels.triton.common import (
    PHILOX_ROUNDS,
    bce_of_negatives,
    cast,
    dequantize,
    dot_dtype,
    load_index,
    load_momentum,
    load_scalar,
    num_sms,
    padded_columns,
    random_row,
    round_to_bf16,
    rounding_noise,
    sgd_update,
    store_rounded,
    to_dot_dtype,
)
from haste.kernels.triton.densify import DenseDx
from haste.kernels.triton.route import Route, choose_route

COPIES = 4
"""of [H, Bp] for the atomic sums; more are no faster, one is half as fast"""
LABELS_PER_CHUNK = 262144
"""at most, on the route densify; a chunk costs two launches and keeps 2 (B + F) bytes a label"""
MOST_INDICES = 2**31 - 1
"""that kernels address with 32 bits; weights are addressed with 64"""
FEW = 4
"""groups per positive from which on groups with a positive get a launch of their own"""
TARGET_BYTES = 48 << 20
"""of the targets of groups with a positive"""


@triton.jit
def _tile(
    b, idx, weight, bias, inside, x_ptr, target_ptr, dx_ptr, dz_ptr, chunk_row,
    batch, width, loss, dw, db,
    POSITIVES: tl.constexpr, DENSIFY: tl.constexpr, PADDED: tl.constexpr, BF16_LOSS: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add one tile of the batch, documents b, to loss [G], dw [G, F] and db [G], and store its dz or dX."""
    gathered = tl.load(x_ptr + idx[:, None] * width + b[None, :]).to(DOT_DTYPE)
    z = tl.dot(weight, gathered, input_precision=PRECISION) + bias[:, None]
    z, dz, loss_of_tile = bce_of_negatives(z, b, batch, PADDED, BF16_LOSS)
    loss += loss_of_tile
    if POSITIVES:
        y = tl.load(target_ptr + b[None, :]).to(tl.float32)
        dz -= y
        if BF16_LOSS:
            dz = round_to_bf16(dz)
        loss -= tl.sum(tl.where(y > 0, z, 0.0), 1)
    db += tl.sum(dz, 1)
    d = dz.to(DOT_DTYPE)
    dw = tl.dot(d, tl.trans(gathered), dw, input_precision=PRECISION)
    if DENSIFY:
        offsets = chunk_row[:, None] * width + b[None, :]
        tl.store(dz_ptr + offsets, cast(dz, dz_ptr.dtype.element_ty), mask=inside[:, None])
    else:
        dx = tl.dot(tl.trans(weight), d, input_precision=PRECISION)
        tl.atomic_add(dx_ptr + idx[:, None] * width + b[None, :], dx, sem="relaxed")
    return loss, dw, db


@triton.jit
def _group(
    k, enabled, x_ptr, w_ptr, index_ptr, bias_ptr, momentum_ptr, bias_momentum_ptr, target_ptr,
    dx_ptr, dz_ptr, old_w_ptr, chunk_begin,
    n_labels, batch, width, lr, momentum, decay, seed, step, first_row, total_rows,
    G: tl.constexpr, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    POSITIVES: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DENSIFY: tl.constexpr, PADDED: tl.constexpr, UNROLL: tl.constexpr, BF16_LOSS: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """One SGD step of sum-BCE on group k, whose positives are the ones in `target`; its loss [G].

    Nothing changes, and the loss is 0, unless `enabled`.
    """
    f = tl.arange(0, F)
    idx = load_index(index_ptr, k, F, BLOCK_SIZE)
    rows = (k * G + tl.arange(0, G)).to(tl.int64)
    inside = (rows < n_labels) & enabled
    offsets = rows[:, None] * F + f[None, :]
    stored = tl.load(w_ptr + offsets, mask=inside[:, None], other=0)
    weight = to_dot_dtype(stored, DOT_DTYPE)
    # rows beyond the last label have a logit of minus infinity: no loss, no gradient
    bias = tl.where(inside, tl.load(bias_ptr + rows, mask=inside, other=0.0).to(tl.float32), -1e30)
    chunk_row = rows - chunk_begin
    loss = tl.zeros([G], tl.float32)
    dw = tl.zeros([G, F], tl.float32)
    db = tl.zeros([G], tl.float32)
    if UNROLL:
        for tile in tl.static_range(NUM_TILES):
            loss, dw, db = _tile(
                tile * BLOCK_B + tl.arange(0, BLOCK_B), idx, weight, bias, inside, x_ptr, target_ptr,
                dx_ptr, dz_ptr, chunk_row, batch, width, loss, dw, db,
                POSITIVES, DENSIFY, PADDED, BF16_LOSS, DOT_DTYPE, PRECISION,
            )  # fmt: skip
    else:
        for tile in tl.range(0, NUM_TILES, num_stages=2):
            loss, dw, db = _tile(
                tile * BLOCK_B + tl.arange(0, BLOCK_B), idx, weight, bias, inside, x_ptr, target_ptr,
                dx_ptr, dz_ptr, chunk_row, batch, width, loss, dw, db,
                POSITIVES, DENSIFY, PADDED, BF16_LOSS, DOT_DTYPE, PRECISION,
            )  # fmt: skip
    if DENSIFY:
        old_w = old_w_ptr + chunk_row[:, None] * F + f[None, :]
        tl.store(old_w, cast(weight, old_w_ptr.dtype.element_ty), mask=inside[:, None])
    v = load_momentum(momentum_ptr, offsets, inside[:, None], dw, HAS_MOMENTUM)
    bv = load_momentum(bias_momentum_ptr, rows, inside, db, HAS_MOMENTUM)
    new, v = sgd_update(dequantize(stored), v, dw, lr, momentum, decay, HAS_MOMENTUM)
    new_bias, bv = sgd_update(bias, bv, db, lr, momentum, decay, HAS_MOMENTUM)
    noise = offsets.to(tl.int32)
    bias_noise = rows.to(tl.int32)
    if STOCHASTIC:
        full: tl.constexpr = HAS_MOMENTUM or w_ptr.dtype.element_ty == tl.uint8
        noise = rounding_noise(seed, step, rows + first_row, 0, full, G, F, ROUNDS)
        # after the random numbers of the weights' rows
        bias_noise = random_row(seed, step, rows + first_row + total_rows, ROUNDS)
    store_rounded(w_ptr + offsets, new, noise, inside[:, None], STOCHASTIC)
    store_rounded(bias_ptr + rows, new_bias, bias_noise, inside, STOCHASTIC)
    if HAS_MOMENTUM:
        store_rounded(momentum_ptr + offsets, v, noise >> 16, inside[:, None], STOCHASTIC)
        store_rounded(bias_momentum_ptr + rows, bv, bias_noise >> 16, inside, STOCHASTIC)
    return loss


@triton.jit(
    # they change from step to step: without this, a kernel is compiled for multiples of 16 and for 1
    do_not_specialize=[
        "chunk_group",
        "first_group",
        "last_group",
        "first_tile",
        "last_tile",
        "seed",
        "step",
        "first_row",
        "total_rows",
    ]
)
def _step_kernel(
    x_ptr, w_ptr, index_ptr, bias_ptr, momentum_ptr, bias_momentum_ptr, bounds_ptr, label_ptr, targets_ptr,
    dx_ptr, dz_ptr, old_w_ptr, loss_ptr, chunk_group, first_group, last_group, first_tile, last_tile,
    copy_size, n_labels, batch, width, lr, momentum, decay, seed, step, first_row, total_rows,
    G: tl.constexpr, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    POSITIVES: tl.constexpr, BY_PAIR: tl.constexpr,
    HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DENSIFY: tl.constexpr, PADDED: tl.constexpr, UNROLL: tl.constexpr, BF16_LOSS: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
    NUM_COPIES: tl.constexpr, NUM_STAGES: tl.constexpr,
):  # fmt: skip
    """The step of this program's share of the groups first_group..last_group: without POSITIVES of those
    without a positive, with POSITIVES of all, or, BY_PAIR, of those with one, by their first positive."""
    program = tl.program_id(0)
    lr = load_scalar(lr)
    step = load_scalar(step)
    begin, end = first_group, last_group
    if BY_PAIR:
        # without labels of another chunk, or of another part of the output layer
        begin = tl.maximum(first_tile, tl.load(bounds_ptr + first_group))
        end = tl.minimum(last_tile, tl.load(bounds_ptr + last_group))
    per = tl.cdiv(end - begin, tl.num_programs(0))
    first = begin + program * per
    chunk_begin = chunk_group.to(tl.int64) * G
    copy_ptr = dx_ptr
    if not DENSIFY:
        copy_ptr = dx_ptr + (program % NUM_COPIES).to(tl.int64) * copy_size
    total = tl.zeros([G], tl.float32)
    for i in tl.range(first, tl.minimum(first + per, end), num_stages=NUM_STAGES):
        k = i
        if BY_PAIR:
            k = tl.load(label_ptr + i) // G
        enabled = k < last_group
        target_ptr = targets_ptr
        if POSITIVES:
            rows = (i - first_tile) * G + tl.arange(0, G)
            target_ptr = targets_ptr + rows.to(tl.int64)[:, None] * width
            if BY_PAIR:
                enabled = tl.load(bounds_ptr + k) == i
        else:
            enabled = tl.load(bounds_ptr + k) == tl.load(bounds_ptr + k + 1)
        total += _group(
            k, enabled, x_ptr, w_ptr, index_ptr, bias_ptr, momentum_ptr, bias_momentum_ptr, target_ptr,
            copy_ptr, dz_ptr, old_w_ptr, chunk_begin,
            n_labels, batch, width, lr, momentum, decay, seed, step, first_row, total_rows,
            G, F, BLOCK_SIZE, BLOCK_B, NUM_TILES, POSITIVES, HAS_MOMENTUM, STOCHASTIC, DENSIFY, PADDED, UNROLL,
            BF16_LOSS, DOT_DTYPE, PRECISION, ROUNDS,
        )  # fmt: skip
    tl.store(loss_ptr + program, tl.sum(total))


@triton.jit(do_not_specialize=["first_tile", "last_tile", "pairs"])
def _mark_positives(
    bounds_ptr, label_ptr, doc_ptr, targets_ptr, first_tile, last_tile, pairs, n_labels, width,
    G: tl.constexpr, BLOCK: tl.constexpr, BY_PAIR: tl.constexpr,
):  # fmt: skip
    """targets[m - first_tile, l % G, doc] = 1 for positives (l, doc), where m is the group of label l, or,
    BY_PAIR, the first positive of that group, if first_tile <= m < last_tile."""
    q = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    label = tl.load(label_ptr + q, mask=q < pairs, other=-1)
    valid = (label >= 0) & (label < n_labels)
    tile = label // G
    if BY_PAIR:
        tile = tl.load(bounds_ptr + tile, mask=valid, other=-1)
    valid = valid & (tile >= first_tile) & (tile < last_tile)
    offsets = ((tile - first_tile).to(tl.int64) * G + label % G) * width
    b = tl.load(doc_ptr + q, mask=valid, other=0)
    tl.store(targets_ptr + offsets + b, tl.full([BLOCK], 1, tl.int8), mask=valid)


@dataclass(frozen=True)
class Launch:
    """How the kernel is launched: documents per tile, warps per program, programs per multiprocessor, stages
    of the pipeline over groups, and whether the loop over at most four tiles of documents is unrolled."""

    batch_tile: int
    warps: int
    blocks_per_sm: int
    stages: int = 2
    unroll: bool = True

    def __post_init__(self) -> None:
        # the product of 1 + e over a tile's columns must stay finite
        check_one_of("batch_tile", self.batch_tile, (16, 32, 64))


def choose_launch(
    batch: int, fan_in: int, group_size: int, item_size: int = 2, momentum: bool = False
) -> Launch:
    """The launch measured to be best on an H100 or H200 for shapes like this one (`item_size`: bytes per
    weight)."""
    small = 16 if batch <= 16 else 32
    if item_size > 2 or fan_in * group_size > 128 * 64:
        return Launch(small, 8 if fan_in * group_size > 128 * 64 else 4, 2, stages=1)
    if fan_in <= 64 and group_size == 16:
        return Launch(small, 1, 16)
    if fan_in <= 64:
        return Launch(small, 2, 4)
    tile = small if batch <= 32 else 64
    if group_size == 16:
        return Launch(tile, 4, 2, unroll=False)
    if group_size >= 64 and momentum:
        # unrolled, its registers spill
        return Launch(small, 4, 2, unroll=False)
    return Launch(tile, 4, 4 if group_size >= 64 else 2)


def group_step(
    features: Tensor,
    state: LayerState,
    index: Tensor,
    positives: Positives[Tensor],
    context: StepContext,
    sgd: Sgd,
    *,
    group_size: int,
    block_size: int = 1,
    unique: bool = False,
    deterministic: bool = False,
    loss_dtype: torch.dtype = torch.float32,
    launch: Launch | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss (fp32 scalar) and dX fp32 [B, H]; the layer is updated in place.

    features [B, H]; index int32 [K, F / block_size]. Logits, loss and sums are fp32. bf16 and E4M3
    tensors are rounded stochastically with Philox numbers of (seed, step, element) where `sgd.rounding`
    says so. `unique` and `deterministic` as in `route.choose_route`. Raises KernelError.
    """
    weight, bias, momentum = state.weight, state.bias, state.momentum
    check_sizes(weight, index, group_size)
    n_labels, fan_in = weight.shape
    batch, n_features = features.shape
    launch = launch or choose_launch(
        batch, fan_in, group_size, weight.element_size(), momentum is not None
    )
    route = choose_route(
        batch, n_features, fan_in, group_size, weight.element_size(), unique=unique,
        deterministic=deterministic, fused=True,
    )  # fmt: skip
    columns = padded_columns(features, weight.dtype, launch.batch_tile)
    width = columns.shape[1]
    device = features.device
    groups = index.shape[0]
    edges = torch.arange(0, (groups + 1) * group_size, group_size, device=device, dtype=torch.int32)
    bounds = torch.searchsorted(positives.label_row, edges.clamp_(max=n_labels), out_int32=True)
    programs = min(num_sms(device) * launch.blocks_per_sm, groups)
    batch_tiles = width // launch.batch_tile
    constants = {
        "G": group_size,
        "F": fan_in,
        "BLOCK_SIZE": block_size,
        "BLOCK_B": launch.batch_tile,
        "NUM_TILES": batch_tiles,
        "HAS_MOMENTUM": momentum is not None,
        "STOCHASTIC": weight.dtype in (torch.bfloat16, FP8) and sgd.rounding == "stochastic",
        "DENSIFY": route is Route.DENSIFY,
        "PADDED": width != batch,
        "UNROLL": launch.unroll and batch_tiles <= 4,
        "BF16_LOSS": loss_dtype == torch.bfloat16,
        "DOT_DTYPE": dot_dtype(weight.dtype),
        "PRECISION": "ieee",
        "ROUNDS": PHILOX_ROUNDS,
        "NUM_COPIES": COPIES,
        "NUM_STAGES": launch.stages if batch_tiles <= 4 else 1,
        "num_warps": launch.warps,
    }
    layer = (
        columns, storage_view(weight), index, bias, momentum, state.bias_momentum, bounds, positives.label_row
    )  # fmt: skip
    scalars = (
        n_labels, batch, width, context.lr, sgd.momentum, sgd.weight_decay, context.seed, context.step,
        state.first_row, state.total_rows,
    )  # fmt: skip
    passes = StepPasses(positives, bounds, groups, n_labels, group_size, width)
    losses = []

    def launch_over(first: int, last: int, *buffers: Tensor | None) -> None:
        for begin, end, tiles in passes.over(first, last):
            loss = torch.empty(programs, dtype=torch.float32, device=device)
            _step_kernel[(programs,)](
                *layer, tiles.tensor, *buffers, loss, first, begin, end, tiles.first, tiles.last,
                n_features * width, *scalars, POSITIVES=tiles.tensor is not None,
                BY_PAIR=tiles.by_pair, **constants,
            )  # fmt: skip
            losses.append(loss)

    if route is Route.DENSIFY:
        dx = _step_by_chunks(launch_over, weight, index, columns, group_size, block_size)
    else:
        copies = torch.zeros(COPIES, n_features, width, dtype=torch.float32, device=device)
        launch_over(0, groups, copies, None, None)
        dx = copies.sum(0)
    return torch.stack(losses).sum(), dx[:, :batch].t()


def _step_by_chunks(
    launch_over: Callable[..., None],
    weight: Tensor,
    index: Tensor,
    columns: Tensor,
    group_size: int,
    block_size: int,
) -> Tensor:
    """Take the step chunk by chunk; dX fp32 [H, Bp]."""
    n_labels, fan_in = weight.shape
    n_features, width = columns.shape
    groups = len(index)
    chunks = math.ceil(groups * group_size / LABELS_PER_CHUNK)
    groups_per_chunk = math.ceil(groups / chunks)
    size = groups_per_chunk * group_size
    dz = torch.empty(size, width, dtype=columns.dtype, device=columns.device)
    old_weight = torch.empty(size, fan_in, dtype=columns.dtype, device=columns.device)
    dx = DenseDx(index, fan_in, n_features, width, group_size, block_size, columns.dtype)
    for first in range(0, groups, groups_per_chunk):
        last = min(first + groups_per_chunk, groups)
        launch_over(first, last, None, dz, old_weight)
        count = min(last * group_size, n_labels) - first * group_size
        dx.add(dz[:count], old_weight[:count], first)
    return dx.total()


@dataclass(frozen=True)
class PositiveTiles:
    """The positives of groups first..last as targets, int8 tiles [G, Bp] with 1 for positives: one for each
    group, or, `by_pair`, one for each of the positives first..last, of which a group's first has those of
    the group. Without a tensor there are no positives."""

    first: int = 0
    last: int = 0
    by_pair: bool = False
    tensor: Tensor | None = None


class StepPasses:
    """The launches over groups that make a step, and their tiles of positives.

    Where many groups have a positive, one launch takes all groups with their targets. Where few have, as
    with millions of labels, one launch takes the groups without a positive, which needs no targets, and
    another those with one.
    """

    def __init__(
        self,
        positives: Positives[Tensor],
        bounds: Tensor,
        groups: int,
        n_labels: int,
        group_size: int,
        width: int,
    ) -> None:
        self.positives, self.bounds, self.n_labels = positives, bounds, n_labels
        self.group_size, self.width = group_size, width
        self.pairs = positives.label_row.numel()
        self.few = self.pairs * FEW < groups
        self.size = max(1, TARGET_BYTES // (group_size * width))
        self.kept: PositiveTiles | None = None

    def over(self, first: int, last: int) -> Iterator[tuple[int, int, PositiveTiles]]:
        """Groups first..last as launches: first and last group of each, and its tiles."""
        if not self.few:
            for begin in range(first, last, self.size):
                end = min(begin + self.size, last)
                yield begin, end, self._tiles(begin, end, by_pair=False)
            return
        yield first, last, PositiveTiles()
        for begin in range(0, self.pairs, self.size):
            end = min(begin + self.size, self.pairs)
            if self.kept is None or (self.kept.first, self.kept.last) != (begin, end):
                # nearly always there is one tensor of tiles, which all chunks share
                self.kept = self._tiles(begin, end, by_pair=True)
            yield first, last, self.kept

    def _tiles(self, first: int, last: int, *, by_pair: bool) -> PositiveTiles:
        shape = (last - first, self.group_size, self.width)
        tensor = torch.zeros(shape, dtype=torch.int8, device=self.bounds.device)
        if self.pairs:
            _mark_positives[(triton.cdiv(self.pairs, 256),)](
                self.bounds, self.positives.label_row, self.positives.doc, tensor, first, last,
                self.pairs, self.n_labels, self.width, G=self.group_size, BLOCK=256, BY_PAIR=by_pair,
            )  # fmt: skip
        return PositiveTiles(first, last, by_pair, tensor)


def check_sizes(weight: Tensor, index: Tensor, group_size: int) -> None:
    """Raise KernelError for sizes that have no kernel."""
    check_one_of("group_size", group_size, GROUP_SIZES)
    check_one_of("weight: fan-in", weight.shape[1], FAN_INS)
    if index.numel() > MOST_INDICES:
        raise KernelError(
            f"index: {index.numel():,} entries are more than {MOST_INDICES:,}; take larger groups or a "
            "smaller fan-in."
        )
