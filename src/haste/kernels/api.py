"""The kernels by their public names: sparse linear functions with autograd, and fused training steps.

All tensors of a call lie on one device. `backend` is "triton" or "torch"; None takes triton for tensors
on a GPU, or where TRITON_INTERPRET=1 is set, and torch otherwise.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from haste.errors import KernelError
from haste.kernels import torch_backend
from haste.kernels.checks import (
    BACKENDS,
    LOSS_DTYPES,
    check_count,
    check_groups,
    check_index,
    check_momentum,
    check_one_of,
    check_positives,
    check_rows,
    check_sgd,
    check_tensor,
)
from haste.kernels.reference import run_index
from haste.kernels.rounding import FP8, generator, mix, widen
from haste.kernels.state import FAN_INS, Positives, Sgd


def group_linear(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor | None = None,
    *,
    group_size: int,
    distinct: bool = False,
    deterministic: bool = False,
    index_checked: bool = False,
    backend: str | None = None,
) -> Tensor:
    """[B, L] logits of labels that read F features in groups: z_l = <w_l, h[I_g(l)]> + b_l.

    features [B, H]; weight [L, F] fp32, bf16, fp16 (E4M3: no gradient), bias [L] alike; index int32
    [K, F], K = ceil(L / group_size), label l being of group l // group_size. Differentiable in
    features, weight and bias. `distinct` promises that no group names a feature twice, which lets the
    features' gradient avoid atomics where that is quicker; `deterministic`, which needs the promise,
    where it is not, too. Raises KernelError for arguments that do not fit and indices out of range; to
    look at the indices waits for the GPU, so who has checked them before says `index_checked`.
    """
    return block_sparse_linear(
        features, weight, index, bias, group_size=group_size, run=1, distinct=distinct,
        deterministic=deterministic, index_checked=index_checked, backend=backend,
    )  # fmt: skip


def block_sparse_linear(
    features: Tensor,
    weight: Tensor,
    start: Tensor,
    bias: Tensor | None = None,
    *,
    group_size: int,
    run: int,
    distinct: bool = False,
    deterministic: bool = False,
    index_checked: bool = False,
    backend: str | None = None,
) -> Tensor:
    """As `group_linear`, for groups that read runs of `run` features: run s of a group begins at
    feature `run` * start[k, s]; start int32 [K, F / run]."""
    check_groups(features, weight, start, bias, group_size, run)
    check_one_of("weight: fan-in", weight.shape[1], FAN_INS)
    if not index_checked:
        check_index("index", start, features.shape[1] // run)
    _check_order(deterministic, distinct)
    if choose_backend(backend, features) == "torch":
        index = start if run == 1 else run_index(start * run, run)
        wide = (features.float(), widen(weight), index, None if bias is None else bias.float())
        return torch_backend.group_linear(*wide, group_size=group_size).to(features.dtype)
    return _GroupLinear.apply(
        features, weight, start, bias, group_size, run, distinct, deterministic
    )


class _GroupLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, index, bias, group_size, run, distinct, deterministic):  # noqa: ANN205
        from haste.kernels.triton.group_linear import group_forward

        ctx.save_for_backward(features, weight, index)
        ctx.options = {"group_size": group_size, "run": run}
        ctx.route = {"distinct": distinct, "deterministic": deterministic}
        ctx.bias_dtype = None if bias is None else bias.dtype
        return group_forward(features, weight, index, bias, group_size=group_size, run=run)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: ANN205
        from haste.kernels.triton.group_linear import group_grad_features, group_grad_weight

        features, weight, index = ctx.saved_tensors
        grad = grad.contiguous()
        grad_features = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_features = group_grad_features(
                grad, weight, index, features.shape[1], **ctx.options, **ctx.route
            ).to(features.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = group_grad_weight(
                features, grad, index, weight.shape[1], dtype=weight.dtype, **ctx.options
            )
        if ctx.needs_input_grad[3]:
            grad_bias = grad.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        return grad_features, grad_weight, None, grad_bias, None, None, None, None


def fixed_fan_in_linear(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor | None = None,
    *,
    distinct: bool = False,
    backend: str | None = None,
) -> Tensor:
    """[B, L] logits of labels with an index set each: weight [L, F], index int32 [L, F].

    `distinct` promises that no label names a feature twice. Otherwise as `group_linear`; the sums have
    a fixed order where the promise is given.
    """
    check_groups(features, weight, index, bias, 1)
    check_one_of("weight: fan-in", weight.shape[1], FAN_INS)
    check_index("index", index, features.shape[1])
    if choose_backend(backend, features) == "torch":
        wide = (features.float(), widen(weight), index, None if bias is None else bias.float())
        return torch_backend.fixed_fan_in_linear(*wide).to(features.dtype)
    return _FixedFanInLinear.apply(features, weight, index, bias, distinct)


class _FixedFanInLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, index, bias, distinct):  # noqa: ANN205
        from haste.kernels.triton.fixed import fixed_fan_in_forward

        ctx.save_for_backward(features, weight, index)
        ctx.distinct = distinct
        ctx.bias_dtype = None if bias is None else bias.dtype
        return fixed_fan_in_forward(features, weight, index, bias, distinct=distinct)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: ANN205
        from haste.kernels.triton.fixed import (
            fixed_fan_in_grad_features,
            fixed_fan_in_grad_weight,
        )

        features, weight, index = ctx.saved_tensors
        grad = grad.contiguous()
        grad_features = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_features = fixed_fan_in_grad_features(
                grad, weight, index, features.shape[1], distinct=ctx.distinct
            ).to(features.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = fixed_fan_in_grad_weight(features, grad, index, dtype=weight.dtype)
        if ctx.needs_input_grad[3]:
            grad_bias = grad.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        return grad_features, grad_weight, None, grad_bias, None


def group_fused_step(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor,
    momentum: Tensor | None,
    bias_momentum: Tensor | None,
    positives: Positives,
    *,
    group_size: int,
    lr: float | Tensor,
    momentum_factor: float = 0.0,
    weight_decay: float = 0.0,
    seed: int,
    step: int | Tensor,
    rounding: str = "stochastic",
    run: int = 1,
    distinct: bool = False,
    deterministic: bool = False,
    loss_dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """One SGD step of sum-BCE on a group-shared layer: loss (fp32 scalar) and the features' gradient,
    fp32 [B, H]; weight, bias and momenta are updated in place. Nothing of size B x L is kept.

    Shapes and switches as in `group_linear`; with `run` > 1 index holds starts of runs, as in
    `block_sparse_linear`. momentum [L, F] and bias_momentum [L], or None each. `positives` as
    `haste.data.batches` makes them. v <- momentum_factor v + g + weight_decay w; w <- w - lr v; bf16
    and E4M3 are rounded stochastically from (seed, step), or with rounding="nearest" to nearest.
    `loss_dtype` bf16 mimics the released code. Indices are not checked for range here: that would wait
    for the GPU at each step. With the Triton backend `lr` (fp32) and `step` (int32) may be tensors of
    one number, so that a CUDA graph of the step can be replayed with other numbers.
    """
    sgd = Sgd(lr, momentum_factor, weight_decay, rounding)
    check_sgd(sgd)
    check_groups(features, weight, index, bias, group_size, run)
    _check_step(features, weight, bias, momentum, bias_momentum, positives, loss_dtype)
    _check_order(deterministic, distinct)
    state = (features, weight, index, bias, momentum, bias_momentum, positives)
    if choose_backend(backend, features) == "triton":
        from haste.kernels.triton.group_step import group_step

        return group_step(
            *state, group_size=group_size, sgd=sgd, seed=mix(seed, len(weight)), step=step, run=run,
            distinct=distinct, deterministic=deterministic, loss_dtype=loss_dtype,
        )  # fmt: skip
    return torch_backend.group_step(
        features.float(), weight, index if run == 1 else run_index(index * run, run), *state[3:],
        group_size=group_size, sgd=sgd, random=_random(weight, rounding, seed, step),
        loss_dtype=loss_dtype,
    )  # fmt: skip


def fixed_fan_in_fused_step(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor,
    momentum: Tensor | None,
    bias_momentum: Tensor | None,
    positives: Positives,
    *,
    lr: float | Tensor,
    momentum_factor: float = 0.0,
    weight_decay: float = 0.0,
    seed: int,
    step: int | Tensor,
    rounding: str = "stochastic",
    distinct: bool = False,
    loss_dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As `group_fused_step`, with an index set for each label: index int32 [L, F]."""
    sgd = Sgd(lr, momentum_factor, weight_decay, rounding)
    check_sgd(sgd)
    check_groups(features, weight, index, bias, 1)
    _check_step(features, weight, bias, momentum, bias_momentum, positives, loss_dtype)
    state = (features, weight, index, bias, momentum, bias_momentum, positives)
    if choose_backend(backend, features) == "triton":
        from haste.kernels.triton.dense import fixed_fan_in_step

        return fixed_fan_in_step(
            *state, sgd=sgd, seed=mix(seed, len(weight)), step=step, distinct=distinct,
            loss_dtype=loss_dtype,
        )  # fmt: skip
    return torch_backend.fixed_fan_in_step(
        features.float(), *state[1:], sgd=sgd, random=_random(weight, rounding, seed, step),
        loss_dtype=loss_dtype,
    )  # fmt: skip


def dense_fused_step(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: Tensor | None,
    bias_momentum: Tensor | None,
    positives: Positives,
    *,
    lr: float | Tensor,
    momentum_factor: float = 0.0,
    weight_decay: float = 0.0,
    seed: int,
    step: int | Tensor,
    rounding: str = "stochastic",
    mask: Tensor | None = None,
    labels_a_tile: int | None = None,
    loss_dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As `group_fused_step`, for rows that read all features: weight [L, H].

    `mask` bool [L, H] keeps pruned weights at zero; `labels_a_tile` bounds the labels whose logits are
    held at a time (the Triton backend holds at most `dense.SLAB_BYTES` of them anyway).
    """
    sgd = Sgd(lr, momentum_factor, weight_decay, rounding)
    check_sgd(sgd)
    check_rows(features, weight, bias, features.shape[-1])
    _check_step(features, weight, bias, momentum, bias_momentum, positives, loss_dtype)
    if mask is not None:
        check_tensor("mask", mask, tuple(weight.shape), (torch.bool,), features.device)
    if labels_a_tile is not None:
        check_count("labels_a_tile", labels_a_tile)
    state = (weight, bias, momentum, bias_momentum, positives)
    if choose_backend(backend, features) == "triton":
        from haste.kernels.triton.dense import dense_step

        return dense_step(
            features, *state, sgd=sgd, seed=mix(seed, len(weight)), step=step, mask=mask,
            labels_a_tile=labels_a_tile or len(weight), loss_dtype=loss_dtype,
        )  # fmt: skip
    return torch_backend.dense_step(
        features.float(), *state, sgd=sgd, random=_random(weight, rounding, seed, step),
        labels_a_tile=labels_a_tile or len(weight), loss_dtype=loss_dtype, mask=mask,
    )  # fmt: skip


def choose_backend(name: str | None, features: Tensor) -> str:
    """The backend that `name` means for these features; raises KernelError for another name."""
    if name is not None:
        check_one_of("backend", name, BACKENDS)
        return name
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return "triton" if features.is_cuda or interpreted else "torch"


def _check_step(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: Tensor | None,
    bias_momentum: Tensor | None,
    positives: Positives,
    loss_dtype: torch.dtype,
) -> None:
    """Raise KernelError for what a step takes besides the layer that `check_rows` has checked."""
    check_momentum(weight, bias, momentum, bias_momentum)
    check_positives(positives, len(features), features.device)
    check_one_of("loss_dtype", loss_dtype, LOSS_DTYPES)


def _check_order(deterministic: bool, distinct: bool) -> None:
    if deterministic and not distinct:
        raise KernelError(
            "deterministic: needs distinct=True: the sums of features that a group names twice have "
            "no fixed order."
        )


def _random(weight: Tensor, rounding: str, seed: int, step: int) -> torch.Generator | None:
    """The generator of a step's rounding; None where nothing is rounded stochastically."""
    stochastic = weight.dtype in (torch.bfloat16, FP8)
    if not stochastic or rounding != "stochastic":
        return None
    return generator(weight.device, seed, step, 1)
