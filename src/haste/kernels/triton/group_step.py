"""The fused step of the group-shared layer in Triton: one pass over the weights, no B x L tensor.

Features come transposed, [H, Bp] with the batch innermost and padded with zeros, so a gathered
feature is a contiguous run. Kernels are persistent: each program goes through a contiguous range of groups, whose
features are copied to shared memory while the group before is worked on. A group's features are
gathered once for its logits, the loss, both gradients and the update.

dX takes one of two routes (`route`). Atomics: each group adds its part to one of a few copies of
[H, Bp]. Densify: the step goes slab by slab of labels, keeps dz and the weights as they were, and
multiplies them as if dense (`densify`); its order of sums is fixed.
"""

from __future__ import annotations

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
    bce_rows,
    bce_rows_bf16,
    cast,
    dequantize,
    dot_dtype,
    load_scalar,
    num_sms,
    padded_columns,
    random_row,
    round_to_bf16,
    rounding_noise,
    sgd_update,
    sigmoid,
    store_rounded,
    to_dot_dtype,
)
from haste.kernels.triton.densify import DenseDx
from haste.kernels.triton.route import Route, choose_route

COPIES = 4
"""of [H, Bp] for the atomic sums; more are no faster, one is half as fast"""
SLAB = 98304
"""labels of a slab where dX is by densified weights"""
MOST_INDICES = 2**31 - 1
"""that kernels count with 32 bits; weights they count with 64"""
FEW = 4
"""groups for each positive from which on few groups have one"""
TARGET_BYTES = 48 << 20
"""of the targets of groups that have a positive"""


@triton.jit
def _tile(
    b, at, weight, bias, inside, x_ptr, target_ptr, dx_ptr, dz_ptr, slab_row,
    batch, width, loss, dw, db,
    POSITIVES: tl.constexpr, DENSIFY: tl.constexpr, PADDED: tl.constexpr, BF16_LOSS: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of the batch: the loss [G] and gradients so far, with the tile's part added."""
    gathered = tl.load(x_ptr + at[:, None] * width + b[None, :]).to(DOT_DTYPE)
    z = tl.dot(weight, gathered, input_precision=PRECISION) + bias[:, None]
    if BF16_LOSS:
        z = round_to_bf16(z)
    dz, e = sigmoid(z)
    if BF16_LOSS:
        dz = round_to_bf16(dz)
    if PADDED:
        # a document that is not there has the loss and gradient of a logit of minus infinity
        there = (b < batch)[None, :]
        dz = tl.where(there, dz, 0.0)
        e = tl.where(there, e, 0.0)
        z = tl.where(there, z, -1e30)
    loss += bce_rows_bf16(z) if BF16_LOSS else bce_rows(z, e)
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
        spot = slab_row[:, None] * width + b[None, :]
        tl.store(dz_ptr + spot, cast(dz, dz_ptr.dtype.element_ty), mask=inside[:, None])
    else:
        dx = tl.dot(tl.trans(weight), d, input_precision=PRECISION)
        tl.atomic_add(dx_ptr + at[:, None] * width + b[None, :], dx, sem="relaxed")
    return loss, dw, db


@triton.jit
def _group(
    k, enabled, x_ptr, w_ptr, index_ptr, bias_ptr, momentum_ptr, bias_momentum_ptr, target_ptr,
    dx_ptr, dz_ptr, old_w_ptr, slab_begin,
    n_labels, batch, width, lr, momentum, decay, seed, step,
    G: tl.constexpr, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    POSITIVES: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DENSIFY: tl.constexpr, PADDED: tl.constexpr, UNROLL: tl.constexpr, BF16_LOSS: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """One SGD step of sum-BCE on group k, its positives being the ones of `target`; its loss [G].

    Nothing changes, and the loss is 0, unless `enabled`.
    """
    f = tl.arange(0, F)
    at = tl.load(index_ptr + k * (F // BLOCK_SIZE) + f // BLOCK_SIZE) * BLOCK_SIZE + f % BLOCK_SIZE
    rows = (k * G + tl.arange(0, G)).to(tl.int64)
    inside = (rows < n_labels) & enabled
    spot = rows[:, None] * F + f[None, :]
    stored = tl.load(w_ptr + spot, mask=inside[:, None], other=0)
    weight = to_dot_dtype(stored, DOT_DTYPE)
    # a label that is not there has a logit of minus infinity: no loss, no gradient
    bias = tl.where(inside, tl.load(bias_ptr + rows, mask=inside, other=0.0).to(tl.float32), -1e30)
    slab_row = rows - slab_begin
    loss = tl.zeros([G], tl.float32)
    dw = tl.zeros([G, F], tl.float32)
    db = tl.zeros([G], tl.float32)
    if UNROLL:
        for tile in tl.static_range(NUM_TILES):
            loss, dw, db = _tile(
                tile * BLOCK_B + tl.arange(0, BLOCK_B), at, weight, bias, inside, x_ptr, target_ptr,
                dx_ptr, dz_ptr, slab_row, batch, width, loss, dw, db,
                POSITIVES, DENSIFY, PADDED, BF16_LOSS, DOT_DTYPE, PRECISION,
            )  # fmt: skip
    else:
        for tile in tl.range(0, NUM_TILES, num_stages=2):
            loss, dw, db = _tile(
                tile * BLOCK_B + tl.arange(0, BLOCK_B), at, weight, bias, inside, x_ptr, target_ptr,
                dx_ptr, dz_ptr, slab_row, batch, width, loss, dw, db,
                POSITIVES, DENSIFY, PADDED, BF16_LOSS, DOT_DTYPE, PRECISION,
            )  # fmt: skip
    if DENSIFY:
        old_w = old_w_ptr + slab_row[:, None] * F + f[None, :]
        tl.store(old_w, cast(weight, old_w_ptr.dtype.element_ty), mask=inside[:, None])
    v = dw
    bv = db
    if HAS_MOMENTUM:
        v = tl.load(momentum_ptr + spot, mask=inside[:, None], other=0.0).to(tl.float32)
        bv = tl.load(bias_momentum_ptr + rows, mask=inside, other=0.0).to(tl.float32)
    new, v = sgd_update(dequantize(stored), v, dw, lr, momentum, decay, HAS_MOMENTUM)
    new_bias, bv = sgd_update(bias, bv, db, lr, momentum, decay, HAS_MOMENTUM)
    noise = spot.to(tl.int32)
    bias_noise = rows.to(tl.int32)
    if STOCHASTIC:
        full: tl.constexpr = HAS_MOMENTUM or w_ptr.dtype.element_ty == tl.uint8
        noise = rounding_noise(seed, step, rows, 0, full, G, F, ROUNDS)
        # biases draw behind the rows of weights
        bias_noise = random_row(seed, step, n_labels + rows, ROUNDS)
    store_rounded(w_ptr + spot, new, noise, inside[:, None], STOCHASTIC)
    store_rounded(bias_ptr + rows, new_bias, bias_noise, inside, STOCHASTIC)
    if HAS_MOMENTUM:
        store_rounded(momentum_ptr + spot, v, noise >> 16, inside[:, None], STOCHASTIC)
        store_rounded(bias_momentum_ptr + rows, bv, bias_noise >> 16, inside, STOCHASTIC)
    return loss


@triton.jit(
    # numbers that change from step to step: or a kernel would be compiled for multiples of 16 and for 1
    do_not_specialize=[
        "slab_group",
        "first_group",
        "last_group",
        "first_tile",
        "last_tile",
        "seed",
        "step",
    ]
)
def _step_kernel(
    x_ptr, w_ptr, index_ptr, bias_ptr, momentum_ptr, bias_momentum_ptr, bounds_ptr, label_ptr, targets_ptr,
    dx_ptr, dz_ptr, old_w_ptr, loss_ptr, slab_group, first_group, last_group, first_tile, last_tile,
    copy_size, n_labels, batch, width, lr, momentum, decay, seed, step,
    G: tl.constexpr, F: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_B: tl.constexpr, NUM_TILES: tl.constexpr,
    POSITIVES: tl.constexpr, BY_PAIR: tl.constexpr,
    HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DENSIFY: tl.constexpr, PADDED: tl.constexpr, UNROLL: tl.constexpr, BF16_LOSS: tl.constexpr,
    DOT_DTYPE: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
    NUM_COPIES: tl.constexpr, NUM_STAGES: tl.constexpr,
):  # fmt: skip
    """The step of this program's share of the groups first_group..last_group: of all, with POSITIVES,
    or of those without a positive, or, BY_PAIR, of those with one, each found by its first."""
    program = tl.program_id(0)
    lr = load_scalar(lr)
    step = load_scalar(step)
    begin, end = first_group, last_group
    if BY_PAIR:
        # labels of another slab, or of another part of the output layer, lie outside
        begin = tl.maximum(first_tile, tl.load(bounds_ptr + first_group))
        end = tl.minimum(last_tile, tl.load(bounds_ptr + last_group))
    per = tl.cdiv(end - begin, tl.num_programs(0))
    first = begin + program * per
    slab_begin = slab_group.to(tl.int64) * G
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
            copy_ptr, dz_ptr, old_w_ptr, slab_begin,
            n_labels, batch, width, lr, momentum, decay, seed, step,
            G, F, BLOCK_SIZE, BLOCK_B, NUM_TILES, POSITIVES, HAS_MOMENTUM, STOCHASTIC, DENSIFY, PADDED, UNROLL,
            BF16_LOSS, DOT_DTYPE, PRECISION, ROUNDS,
        )  # fmt: skip
    tl.store(loss_ptr + program, tl.sum(total))


@triton.jit(do_not_specialize=["first_tile", "last_tile", "pairs"])
def _mark_positives(
    bounds_ptr, label_ptr, row_ptr, targets_ptr, first_tile, last_tile, pairs, n_labels, width,
    G: tl.constexpr, BLOCK: tl.constexpr, BY_PAIR: tl.constexpr,
):  # fmt: skip
    """targets[m - first_tile, l % G, row] = 1 for positives (l, row), where m is the number of label l's
    group, or, BY_PAIR, that of the group's first positive, if first_tile <= m < last_tile."""
    q = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = tl.load(label_ptr + q, mask=q < pairs, other=-1)
    here = (at >= 0) & (at < n_labels)
    tile = at // G
    if BY_PAIR:
        tile = tl.load(bounds_ptr + tile, mask=here, other=-1)
    here = here & (tile >= first_tile) & (tile < last_tile)
    spot = ((tile - first_tile).to(tl.int64) * G + at % G) * width
    b = tl.load(row_ptr + q, mask=here, other=0)
    tl.store(targets_ptr + spot + b, tl.full([BLOCK], 1, tl.int8), mask=here)


@dataclass(frozen=True)
class Launch:
    """How the kernel is launched: batch tile, warps a program, programs a multiprocessor, groups in
    flight."""

    batch_tile: int
    warps: int
    blocks_per_sm: int
    stages: int = 2

    def __post_init__(self) -> None:
        # the product of 1 + e over a tile's columns must stay finite
        check_one_of("batch_tile", self.batch_tile, (16, 32, 64))


def choose_launch(batch: int, fan_in: int, group_size: int, item_size: int = 2) -> Launch:
    """The launch measured to be best on an H200 for shapes like this one (`item_size`: bytes a weight)."""
    small = 16 if batch <= 16 else 32
    if item_size > 2 or fan_in * group_size > 128 * 64:
        return Launch(small, 8 if fan_in * group_size > 128 * 64 else 4, 2, stages=1)
    if fan_in <= 64 and group_size == 16:
        return Launch(small, 1, 16)
    if fan_in <= 64:
        return Launch(small, 2, 4)
    tile = small if batch <= 32 else 64
    return Launch(tile, 4, 4 if group_size >= 64 else 2)


def group_step(
    features: Tensor,
    state: LayerState,
    index: Tensor,
    positives: Positives,
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
    launch = launch or choose_launch(batch, fan_in, group_size, weight.element_size())
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
        "UNROLL": batch_tiles <= 4,
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
    numbers = (
        n_labels, batch, width, context.lr, sgd.momentum, sgd.weight_decay, context.seed, context.step
    )  # fmt: skip
    passes = StepPasses(positives, bounds, groups, n_labels, group_size, width)
    losses = []

    def launch_over(first: int, last: int, *buffers: Tensor | None) -> None:
        for begin, end, tiles in passes.over(first, last):
            loss = torch.empty(programs, dtype=torch.float32, device=device)
            _step_kernel[(programs,)](
                *layer, tiles.tensor, *buffers, loss, first, begin, end, tiles.first, tiles.last,
                n_features * width, *numbers, POSITIVES=tiles.tensor is not None,
                BY_PAIR=tiles.by_pair, **constants,
            )  # fmt: skip
            losses.append(loss)

    if route is Route.DENSIFY:
        grad = _by_slabs(launch_over, weight, index, columns, group_size, block_size)
    else:
        copies = torch.zeros(COPIES, n_features, width, dtype=torch.float32, device=device)
        launch_over(0, groups, copies, None, None)
        grad = copies.sum(0)
    return torch.stack(losses).sum(), grad[:, :batch].t()


def _by_slabs(
    launch_over: Callable[..., None],
    weight: Tensor,
    index: Tensor,
    columns: Tensor,
    group_size: int,
    block_size: int,
) -> Tensor:
    """fp32 [H, Bp]: the step over slabs of groups, and dX of each after it."""
    n_labels, fan_in = weight.shape
    n_features, width = columns.shape
    groups = len(index)
    groups_a_slab = max(1, SLAB // group_size)
    size = min(groups_a_slab, groups) * group_size
    dz = torch.empty(size, width, dtype=columns.dtype, device=columns.device)
    old = torch.empty(size, fan_in, dtype=columns.dtype, device=columns.device)
    dx = DenseDx(index, fan_in, n_features, width, group_size, block_size, columns.dtype)
    for first in range(0, groups, groups_a_slab):
        last = min(first + groups_a_slab, groups)
        launch_over(first, last, None, dz, old)
        count = min(last * group_size, n_labels) - first * group_size
        dx.add(dz[:count], old[:count], first)
    return dx.total()


@dataclass(frozen=True)
class PositiveTiles:
    """The positives of some groups as targets, tiles [G, Bp] int8: there is one for each group, or,
    `by_pair`, for each positive, which stands for its group if it is the group's first. No tensor: there
    are none."""

    first: int = 0
    last: int = 0
    by_pair: bool = False
    tensor: Tensor | None = None


class StepPasses:
    """Which launches over the groups a step takes, and the tiles of positives that each is given.

    Where many groups have a positive, one launch takes targets for all groups. Where few have, as with
    millions of labels, one launch takes those without and knows of no target, and another those with.
    """

    def __init__(
        self,
        positives: Positives,
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
        """First and last group of each launch that together cover first..last, and its tiles."""
        if not self.few:
            for begin in range(first, last, self.size):
                end = min(begin + self.size, last)
                yield begin, end, self._tiles(begin, end, by_pair=False)
            return
        yield first, last, PositiveTiles()
        for begin in range(0, self.pairs, self.size):
            end = min(begin + self.size, self.pairs)
            if self.kept is None or (self.kept.first, self.kept.last) != (begin, end):
                # nearly always the only one, and then for all slabs
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
