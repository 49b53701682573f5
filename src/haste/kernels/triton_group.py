"""The fused step of the group-shared layer in Triton: one pass over the weights, no B x L tensor.

Features come transposed, [H, Bp] with the batch innermost and padded with zeros, so a gathered
feature is a contiguous run. Programs are persistent: each walks a contiguous range of groups, and the
features stay in its multiprocessor's L1. A group's features are gathered once for its logits, the
loss, both gradients and the update. The features' gradient is summed by fp32 atomics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.config import FAN_INS, GROUP_SIZES
from haste.data.batches import Positives
from haste.kernels.checks import FLOATS, check_one_of, check_tensor
from haste.kernels.triton_device import (
    PHILOX_ROUNDS,
    bce,
    dot_dtype,
    processors,
    random_bits,
    random_row,
    sgd_update,
    store_rounded,
)
from haste.kernels.update import Sgd


@triton.jit
def _group(
    k, low, high, enabled, h, w, index, bias, velocity, bias_velocity, label, row, grad,
    n_labels, batch, width, lr, momentum, decay, seed, step,
    G: tl.constexpr, F: tl.constexpr, BB: tl.constexpr, TILES: tl.constexpr,
    POSITIVES: tl.constexpr, HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """One SGD step of sum-BCE on group k, its positives being pairs low..high; its loss [G].

    Nothing is written, and the loss is 0, unless `enabled`.
    """
    f = tl.arange(0, F)
    at = tl.load(index + k * F + f)
    rows = (k * G + tl.arange(0, G)).to(tl.int64)
    inside = (rows < n_labels) & enabled
    spot = rows[:, None] * F + f[None, :]
    weight = tl.load(w + spot, mask=inside[:, None], other=0.0)
    offset = tl.load(bias + rows, mask=inside, other=0.0).to(tl.float32)
    loss = tl.zeros([G], tl.float32)
    grad_weight = tl.zeros([G, F], tl.float32)
    grad_bias = tl.zeros([G], tl.float32)
    for tile in tl.static_range(TILES):
        b = tile * BB + tl.arange(0, BB)
        gathered = tl.load(h + at[:, None] * width + b[None, :])
        z = tl.dot(weight.to(DOT), gathered.to(DOT), input_precision=PRECISION)
        z += offset[:, None]
        softplus, dz = bce(z, inside[:, None] & (b < batch)[None, :])
        if POSITIVES:
            for q in range(low, high):
                hit = (rows == tl.load(label + q))[:, None] & (b == tl.load(row + q))[None, :]
                dz -= tl.where(hit, 1.0, 0.0)
                softplus -= tl.where(hit, z, 0.0)
        loss += tl.sum(softplus, 1)
        grad_bias += tl.sum(dz, 1)
        d = dz.to(DOT)
        grad_weight = tl.dot(d, tl.trans(gathered).to(DOT), grad_weight, input_precision=PRECISION)
        back = tl.dot(tl.trans(weight).to(DOT), d, input_precision=PRECISION)
        tl.atomic_add(grad + at[:, None] * width + b[None, :], back, mask=enabled, sem="relaxed")
    v = grad_weight
    bv = grad_bias
    if HAS_MOMENTUM:
        v = tl.load(velocity + spot, mask=inside[:, None], other=0.0).to(tl.float32)
        bv = tl.load(bias_velocity + rows, mask=inside, other=0.0).to(tl.float32)
    new, v = sgd_update(weight.to(tl.float32), v, grad_weight, lr, momentum, decay, HAS_MOMENTUM)
    new_bias, bv = sgd_update(offset, bv, grad_bias, lr, momentum, decay, HAS_MOMENTUM)
    noise = spot.to(tl.int32)
    bias_noise = rows.to(tl.int32)
    if STOCHASTIC:
        noise = random_bits(seed, step, rows, G, F, ROUNDS)
        # biases draw behind the rows of weights
        bias_noise = random_row(seed, step, n_labels + rows, ROUNDS)
    store_rounded(w + spot, new, noise, inside[:, None], STOCHASTIC)
    store_rounded(bias + rows, new_bias, bias_noise, inside, STOCHASTIC)
    if HAS_MOMENTUM:
        store_rounded(velocity + spot, v, noise >> 16, inside[:, None], STOCHASTIC)
        store_rounded(bias_velocity + rows, bv, bias_noise >> 16, inside, STOCHASTIC)
    return loss


@triton.jit
def _without_positives(
    h, w, index, bias, velocity, bias_velocity, bounds, label, row, grad, loss,
    n_labels, batch, width, n_groups, lr, momentum, decay, seed, step,
    G: tl.constexpr, F: tl.constexpr, BB: tl.constexpr, TILES: tl.constexpr,
    HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The step of this program's range of groups, but for those that have a positive."""
    per = tl.cdiv(n_groups, tl.num_programs(0))
    first = tl.program_id(0) * per
    total = tl.zeros([G], tl.float32)
    for k in range(first, tl.minimum(first + per, n_groups)):
        free = tl.load(bounds + k) == tl.load(bounds + k + 1)
        total += _group(
            k, 0, 0, free, h, w, index, bias, velocity, bias_velocity, label, row, grad,
            n_labels, batch, width, lr, momentum, decay, seed, step,
            G, F, BB, TILES, False, HAS_MOMENTUM, STOCHASTIC, DOT, PRECISION, ROUNDS,
        )  # fmt: skip
    tl.store(loss + tl.program_id(0), tl.sum(total))


@triton.jit
def _with_positives(
    h, w, index, bias, velocity, bias_velocity, bounds, label, row, grad, loss,
    n_labels, batch, width, lr, momentum, decay, seed, step,
    G: tl.constexpr, F: tl.constexpr, BB: tl.constexpr, TILES: tl.constexpr,
    HAS_MOMENTUM: tl.constexpr, STOCHASTIC: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The step of the group of positive p = program_id, if p is the group's first."""
    p = tl.program_id(0)
    k = tl.load(label + p) // G
    low = tl.load(bounds + k)
    total = tl.zeros([G], tl.float32)
    if low == p:
        total = _group(
            k, low, tl.load(bounds + k + 1), low == p,
            h, w, index, bias, velocity, bias_velocity, label, row, grad,
            n_labels, batch, width, lr, momentum, decay, seed, step,
            G, F, BB, TILES, True, HAS_MOMENTUM, STOCHASTIC, DOT, PRECISION, ROUNDS,
        )  # fmt: skip
    tl.store(loss + p, tl.sum(total))


@dataclass(frozen=True)
class Launch:
    """How the kernel is launched: batch tile, warps a program, programs a multiprocessor."""

    batch_tile: int
    warps: int
    residents: int


def choose_launch(batch: int, fan_in: int, group_size: int) -> Launch:
    """The launch measured to be best on an H200 for shapes like this one."""
    if fan_in <= 64 and group_size == 16 and batch <= 64:
        return Launch(32, 1, 8)
    if fan_in <= 64:
        return Launch(32, 2, 4)
    return Launch(64 if batch > 32 else 32, 4, 4)


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
    seed: int,
    step: int,
    launch: Launch | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss (fp32 scalar) and d(loss)/d(features) fp32 [B, H]; the layer is updated in place.

    features [B, H]; weight [L, F] fp32, bf16 or fp16, bias [L], momenta alike; index int32 [K, F].
    Logits, loss and sums are fp32. bf16 tensors are rounded stochastically with Philox numbers of
    (seed, step, element) where `sgd.rounding` says so. The order of the atomic sums, and so the last
    bits of the gradient, differ from run to run. Raises KernelError.
    """
    _check(features, weight, index, bias, momentum, bias_momentum, group_size)
    n_labels, fan_in = weight.shape
    batch, n_features = features.shape
    launch = launch or choose_launch(batch, fan_in, group_size)
    columns = _transposed(features.to(weight.dtype), launch.batch_tile)
    width = columns.shape[1]
    grad = torch.zeros(n_features, width, dtype=torch.float32, device=features.device)
    groups = index.shape[0]
    first_labels = torch.arange(groups + 1, dtype=torch.int32, device=index.device) * group_size
    bounds = torch.searchsorted(positives.label, first_labels, out_int32=True)
    programs = min(processors(features.device) * launch.residents, groups)
    pairs = positives.label.numel()
    loss = torch.empty(programs + pairs, dtype=torch.float32, device=features.device)
    tensors = (columns, weight, index, bias, momentum, bias_momentum)
    pointers = (bounds, positives.label, positives.row, grad)
    numbers = (sgd.lr, sgd.momentum, sgd.weight_decay, seed, step)
    constants = {
        "G": group_size,
        "F": fan_in,
        "BB": launch.batch_tile,
        "TILES": width // launch.batch_tile,
        "HAS_MOMENTUM": momentum is not None,
        "STOCHASTIC": weight.dtype == torch.bfloat16 and sgd.rounding == "stochastic",
        "DOT": dot_dtype(weight.dtype),
        "PRECISION": "ieee",
        "ROUNDS": PHILOX_ROUNDS,
        "num_warps": launch.warps,
    }
    _without_positives[(programs,)](
        *tensors, *pointers, loss, n_labels, batch, width, groups, *numbers, **constants
    )
    if pairs:
        _with_positives[(pairs,)](
            *tensors, *pointers, loss[programs:], n_labels, batch, width, *numbers, **constants
        )
    return loss.sum(), grad[:, :batch].t().contiguous()


def _check(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor,
    momentum: Tensor | None,
    bias_momentum: Tensor | None,
    group_size: int,
) -> None:
    check_one_of("group_size", group_size, GROUP_SIZES)
    check_tensor("features", features, (None, None), FLOATS)
    device = features.device
    check_tensor("weight", weight, (None, None), FLOATS, device)
    check_one_of("weight: fan-in", weight.shape[1], FAN_INS)
    n_labels, fan_in = weight.shape
    check_tensor("index", index, (-(-n_labels // group_size), fan_in), (torch.int32,), device)
    check_tensor("bias", bias, (n_labels,), (weight.dtype,), device)
    if momentum is not None and bias_momentum is not None:
        check_tensor("momentum", momentum, (n_labels, fan_in), (weight.dtype,), device)
        check_tensor("bias_momentum", bias_momentum, (n_labels,), (weight.dtype,), device)


def _transposed(features: Tensor, multiple: int) -> Tensor:
    """[H, Bp]: `features` [B, H] transposed and padded with zeros to a multiple of `multiple`."""
    batch, n_features = features.shape
    columns = features.new_zeros(n_features, -(-batch // multiple) * multiple)
    columns[:, :batch] = features.t()
    return columns
