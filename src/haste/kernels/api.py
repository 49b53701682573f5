"""The kernels by their public names: linear functions with autograd, and fused training steps.

All tensors of a call are on one device. `backend` is "triton" or "torch"; None means triton for tensors
on a GPU, or where TRITON_INTERPRET=1 is set, and torch otherwise.

A sparse layer is weights [L, F] and int32 `index` [K, F / block_size]: label l is of group
l // group_size, K = ceil(L / group_size), and reads the F features of its group: blocks of `block_size`
contiguous ones, block s of group k beginning at feature block_size * index[k, s]. With a group size of 1
each label has its own index set (fixed fan-in).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

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
    check_learning_rate,
    check_momentum,
    check_one_of,
    check_positives,
    check_rows,
    check_sgd,
    check_tensor,
)
from haste.kernels.loss import LOSSES
from haste.kernels.reference import block_index
from haste.kernels.rounding import dequantize, mix
from haste.kernels.state import FAN_INS, LayerState, Positives, Sgd, StepContext

NO_MOMENTUM = Sgd()


def group_linear(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor | None = None,
    *,
    group_size: int,
    block_size: int = 1,
    unique_indices: bool = False,
    deterministic: bool = False,
    index_checked: bool = False,
    backend: str | None = None,
) -> Tensor:
    """[B, L] logits z_l = <w_l, h[I_g(l)]> + b_l of a sparse layer.

    features [B, H], weight [L, F] and bias [L] in fp32, bf16 or fp16 (a weight in E4M3 has no gradient and a
    bf16 bias); index int32 [K, F / block_size]. Differentiable in features, weight and bias.
    `unique_indices` promises that no group names a feature twice, so that dX is computed without atomics
    where that is faster; `deterministic`, which needs the promise, does so always. Raises KernelError for
    arguments that do not fit and indices out of range; checking the indices synchronizes, so
    `index_checked` says that they have been checked before. Features may have any strides, and B may be 0.
    """
    group_size = check_count("group_size", group_size)
    block_size = check_count("block_size", block_size)
    check_groups(features, weight, index, bias, group_size, block_size, allow_empty=True)
    check_one_of("weight: fan-in", weight.shape[1], FAN_INS)
    if not index_checked:
        check_index("index", index, features.shape[1] // block_size)
    _check_order(deterministic, unique_indices)
    if not len(features):
        # of the right shape, and with gradients that are zero
        inputs = features[:, : weight.shape[1]].float()
        offsets = None if bias is None else bias.float()
        return torch.nn.functional.linear(inputs, dequantize(weight), offsets).to(features.dtype)
    return _GroupLinear.apply(
        features.contiguous(), weight, index, bias, group_size, block_size, unique_indices,
        deterministic, choose_backend(backend, features),
    )  # fmt: skip


class _GroupLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, index, bias, *options):  # noqa: ANN205
        ctx.save_for_backward(features, weight, index)
        ctx.options = options
        ctx.bias_dtype = None if bias is None else bias.dtype
        return product(features, weight, index, bias, *options)

    @staticmethod
    @once_differentiable
    def backward(ctx, dz):  # noqa: ANN205
        dz = dz.contiguous()
        dx, dw = product_backward(dz, *ctx.saved_tensors, *ctx.options, ctx.needs_input_grad)
        db = None
        if ctx.needs_input_grad[3]:
            db = dz.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        return dx, dw, None, db, *(None for _ in ctx.options)


def product(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor | None,
    group_size: int,
    block_size: int,
    unique: bool,
    deterministic: bool,  # noqa: ARG001
    backend: str,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`group_linear` of arguments that have been checked, without autograd, in `dtype` (default: that of the
    features)."""
    dtype = dtype or features.dtype
    if backend == "torch":
        index = index if block_size == 1 else block_index(index, block_size)
        bias = None if bias is None else bias.float()
        logits = torch_backend.linear(
            features.float(), dequantize(weight), index, bias, group_size=group_size
        )
        return logits.to(dtype)
    from haste.kernels.triton import fixed, group_linear

    if group_size == 1:
        return fixed.forward(features, weight, index, bias, unique=unique, dtype=dtype)
    return group_linear.forward(
        features, weight, index, bias, group_size=group_size, block_size=block_size, dtype=dtype
    )


def product_backward(
    dz: Tensor,
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    group_size: int,
    block_size: int,
    unique: bool,
    deterministic: bool,
    backend: str,
    needed: Sequence[bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of features and weight, as far as they are `needed`, for dz [B, L], contiguous."""
    n_features, fan_in = features.shape[1], weight.shape[1]
    dx = dw = None
    if backend == "torch":
        index = index if block_size == 1 else block_index(index, block_size)
        dx, dw = torch_backend.linear_backward(
            dz.float(), features.float(), dequantize(weight), index, group_size=group_size
        )
        return dx.to(features.dtype), dw.to(weight.dtype)
    from haste.kernels.triton import fixed, group_linear

    sizes = {"group_size": group_size, "block_size": block_size}
    if needed[0] and group_size == 1:
        dx = fixed.backward_dx(dz, weight, index, n_features, unique=unique)
    elif needed[0]:
        dx = group_linear.backward_dx(
            dz, weight, index, n_features, unique=unique, deterministic=deterministic, **sizes
        )
    if needed[1] and group_size == 1:
        dw = fixed.backward_dw(features, dz, index, dtype=weight.dtype)
    elif needed[1]:
        dw = group_linear.backward_dw(features, dz, index, fan_in, dtype=weight.dtype, **sizes)
    return dx if dx is None else dx.to(features.dtype), dw


def group_fused_step(
    features: Tensor,
    state: LayerState,
    index: Tensor,
    positives: Positives[Tensor],
    context: StepContext,
    sgd: Sgd = NO_MOMENTUM,
    *,
    group_size: int,
    block_size: int = 1,
    unique_indices: bool = False,
    deterministic: bool = False,
    loss_dtype: torch.dtype = torch.float32,
    loss: str = "bce",
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """One SGD step of sum-BCE on a sparse layer: loss (fp32 scalar) and dX fp32 [B, H].

    `state` is updated in place; no B x L tensor is held. Shapes and promises as in `group_linear`.
    bf16 and E4M3 are rounded as `sgd` says: to nearest, or stochastically from (seed, step). `loss_dtype`
    bf16 mimics the released code. Indices are not checked for range, which would synchronize at each step.
    The torch backend has another `loss`, squared_hinge, and another optimiser, AdamW.
    """
    group_size = check_count("group_size", group_size)
    block_size = check_count("block_size", block_size)
    check_groups(features, state.weight, index, state.bias, group_size, block_size)
    features = features.contiguous()
    backend = choose_backend(backend, features)
    _check_step(features, state, positives, context, sgd, loss_dtype, loss, backend)
    if backend == "torch":
        return torch_backend.sparse_step(
            features.float(), state, index if block_size == 1 else block_index(index, block_size),
            positives, context, sgd, group_size=group_size, loss_dtype=loss_dtype, loss_name=loss,
        )  # fmt: skip
    _check_order(deterministic, unique_indices)
    from haste.kernels.triton import dense, group_step

    arguments = (features, state, index, positives, _seeded(context, state), sgd)
    if group_size == 1:
        return dense.fixed_fan_in_step(*arguments, unique=unique_indices, loss_dtype=loss_dtype)
    return group_step.group_step(
        *arguments, group_size=group_size, block_size=block_size, unique=unique_indices,
        deterministic=deterministic, loss_dtype=loss_dtype,
    )  # fmt: skip


def dense_fused_step(
    features: Tensor,
    state: LayerState,
    positives: Positives[Tensor],
    context: StepContext,
    sgd: Sgd = NO_MOMENTUM,
    *,
    mask: Tensor | None = None,
    labels_per_chunk: int | None = None,
    loss_dtype: torch.dtype = torch.float32,
    loss: str = "bce",
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As `group_fused_step`, for rows that read all features: weight [L, H].

    `mask` bool [L, H] keeps pruned weights at zero; `labels_per_chunk` bounds the labels whose logits are
    held at a time (the Triton backend also bounds them to `triton.dense.CHUNK_BYTES`).
    """
    check_rows(features, state.weight, state.bias, dense=True)
    features = features.contiguous()
    backend = choose_backend(backend, features)
    _check_step(features, state, positives, context, sgd, loss_dtype, loss, backend)
    if mask is not None:
        check_tensor("mask", mask, tuple(state.weight.shape), (torch.bool,), features.device)
    if labels_per_chunk is None:
        labels_per_chunk = len(state.weight)
    labels_per_chunk = check_count("labels_per_chunk", labels_per_chunk)
    if backend == "torch":
        return torch_backend.dense_step(
            features.float(), state, positives, context, sgd, mask=mask,
            labels_per_chunk=labels_per_chunk, loss_dtype=loss_dtype, loss_name=loss,
        )  # fmt: skip
    from haste.kernels.triton.dense import dense_step

    return dense_step(
        features, state, positives, _seeded(context, state), sgd, mask=mask,
        labels_per_chunk=labels_per_chunk, loss_dtype=loss_dtype,
    )  # fmt: skip


def choose_backend(name: str | None, features: Tensor) -> str:
    """The backend for these features: `name`, or by their device for None; KernelError for an unknown name."""
    if name is not None:
        check_one_of("backend", name, BACKENDS)
        return name
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return "triton" if features.is_cuda or interpreted else "torch"


def _check_step(
    features: Tensor,
    state: LayerState,
    positives: Positives[Tensor],
    context: StepContext,
    sgd: Sgd,
    loss_dtype: torch.dtype,
    loss: str,
    backend: str,
) -> None:
    """Raise KernelError for arguments of a step that `check_rows` does not check."""
    check_learning_rate(context)
    check_sgd(sgd)
    check_momentum(state, sgd)
    check_positives(positives, len(features), features.device)
    check_one_of("loss_dtype", loss_dtype, LOSS_DTYPES)
    check_one_of("loss", loss, tuple(LOSSES))
    if backend != "torch" and (loss != "bce" or sgd.adamw):
        raise KernelError(
            f"backend: {backend} steps by SGD on bce alone; for AdamW and squared_hinge use torch."
        )


def _check_order(deterministic: bool, unique_indices: bool) -> None:
    if deterministic and not unique_indices:
        raise KernelError(
            "deterministic: needs unique_indices=True: the sums of features that a group names twice have "
            "no fixed order."
        )


def _seeded(context: StepContext, state: LayerState) -> StepContext:
    """The context with a seed of the layer's own, so that the layers of a model have other random numbers."""
    return replace(context, seed=mix(context.seed, state.total_rows))
