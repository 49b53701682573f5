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
    sgd_update,
    store_rounded,
)
from haste.kernels.update import Sgd


@triton.jit
def _fused(
    h, w, index, bias, velocity, bias_velocity, bounds, label, row, grad, loss,
    n_labels, batch, width, n_groups,
    lr, momentum, decay, seed, step,
    G: tl.constexpr, F: tl.constexpr, BB: tl.constexpr, TILES: tl.constexpr, HAS_MOMENTUM: tl.constexpr,
    STOCHASTIC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """One SGD step of sum-BCE on the labels of this program's groups; see `group_step`."""
    per = tl.cdiv(n_groups, tl.num_programs(0))
    first = tl.program_id(0) * per
    f = tl.arange(0, F)
    g = tl.arange(0, G)
    total = tl.zeros([G], tl.float32)
    for k in range(first, tl.minimum(first + per, n_groups)):
        at = tl.load(index + k * F + f)
        rows = (k * G + g).to(tl.int64)
        inside = rows < n_labels
        spot = rows[:, None] * F + f[None, :]
        weight = tl.load(w + spot, mask=inside[:, None], other=0.0)
        offset = tl.load(bias + rows, mask=inside, other=0.0).to(tl.float32)
        low = tl.load(bounds + k)
        high = tl.load(bounds + k + 1)
        grad_weight = tl.zeros([G, F], tl.float32)
        grad_bias = tl.zeros([G], tl.float32)
        for tile in tl.static_range(TILES):
            b = tile * BB + tl.arange(0, BB)
            gathered = tl.load(h + at[:, None] * width + b[None, :])
            z = tl.dot(weight.to(DOT), gathered.to(DOT), input_precision=PRECISION)
            z += offset[:, None]
            softplus, dz = bce(z, inside[:, None] & (b < batch)[None, :])
            for q in range(low, high):
                hit = (rows == tl.load(label + q))[:, None] & (b == tl.load(row + q))[None, :]
                dz -= tl.where(hit, 1.0, 0.0)
                softplus -= tl.where(hit, z, 0.0)
            total += tl.sum(softplus, 1)
            grad_bias += tl.sum(dz, 1)
            d = dz.to(DOT)
            grad_weight = tl.dot(
                d, tl.trans(gathered).to(DOT), grad_weight, input_precision=PRECISION
            )
            back = tl.dot(tl.trans(weight).to(DOT), d, input_precision=PRECISION)
            tl.atomic_add(grad + at[:, None] * width + b[None, :], back, sem="relaxed")
        v = grad_weight
        bv = grad_bias
        if HAS_MOMENTUM:
            v = tl.load(velocity + spot, mask=inside[:, None], other=0.0).to(tl.float32)
            bv = tl.load(bias_velocity + rows, mask=inside, other=0.0).to(tl.float32)
        new, v = sgd_update(
            weight.to(tl.float32), v, grad_weight, lr, momentum, decay, HAS_MOMENTUM
        )
        new_bias, bv = sgd_update(offset, bv, grad_bias, lr, momentum, decay, HAS_MOMENTUM)
        noise = spot
        bias_noise = rows
        if STOCHASTIC:
            noise = random_bits(seed, step, spot, ROUNDS)
            # element numbers of biases lie behind those of all weights
            behind = n_labels * tl.full([G], F, tl.int64)
            bias_noise = random_bits(seed, step, behind + rows, ROUNDS)
        store_rounded(w + spot, new, noise, inside[:, None], STOCHASTIC)
        store_rounded(bias + rows, new_bias, bias_noise, inside, STOCHASTIC)
        if HAS_MOMENTUM:
            store_rounded(velocity + spot, v, noise >> 16, inside[:, None], STOCHASTIC)
            store_rounded(bias_velocity + rows, bv, bias_noise >> 16, inside, STOCHASTIC)
    tl.store(loss + tl.program_id(0), tl.sum(total))


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
    loss = torch.empty(programs, dtype=torch.float32, device=features.device)
    _fused[(programs,)](
        columns, weight, index, bias, momentum, bias_momentum,
        bounds, positives.label, positives.row, grad, loss,
        n_labels, batch, width, groups,
        sgd.lr, sgd.momentum, sgd.weight_decay, seed, step,
        G=group_size, F=fan_in, BB=launch.batch_tile, TILES=width // launch.batch_tile,
        HAS_MOMENTUM=momentum is not None,
        STOCHASTIC=weight.dtype == torch.bfloat16 and sgd.rounding == "stochastic",
        DOT=dot_dtype(weight.dtype), PRECISION="ieee", ROUNDS=PHILOX_ROUNDS, num_warps=launch.warps,
    )  # fmt: skip
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
