"""`group_linear` for torch.compile, torch.export and ONNX, which cannot look into kernels.

Compiled code calls it as one operator, whatever the batch, so a new batch size compiles nothing again. An
exported program has operators of torch alone, and runs where haste is not installed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from haste.kernels import api


@torch.library.custom_op("haste::group_linear", mutates_args=())
def operator(
    features: Tensor, weight: Tensor, index: Tensor, bias: Tensor | None, group_size: int
) -> Tensor:
    """`api.group_linear` for index sets that have been checked and name no feature twice."""
    return api.group_linear(
        features, weight, index, bias, group_size=group_size, unique_indices=True,
        index_checked=True,
    ).contiguous()  # fmt: skip


@torch.library.custom_op("haste::group_linear_backward", mutates_args=())
def _gradients(
    dz: Tensor, features: Tensor, weight: Tensor, index: Tensor, group_size: int
) -> tuple[Tensor, Tensor]:
    """Of features and weight."""
    if not len(features):
        return torch.zeros_like(features), torch.zeros_like(weight)
    backend = api.choose_backend(None, features)
    arguments = (dz.contiguous(), features.contiguous(), weight, index)
    dx, dw = api.product_backward(*arguments, group_size, 1, True, False, backend)
    assert dx is not None, "asked for"
    assert dw is not None, "asked for"
    return dx.contiguous(), dw


@operator.register_fake
def _(features, weight, index, bias, group_size):  # noqa: ANN202, ARG001
    return features.new_empty(features.shape[0], weight.shape[0])


@_gradients.register_fake
def _(dz, features, weight, index, group_size):  # noqa: ANN202, ARG001
    return features.new_empty(features.shape), torch.empty_like(weight)


def _setup_context(ctx, inputs, output) -> None:  # noqa: ARG001
    features, weight, index, bias, ctx.group_size = inputs
    ctx.save_for_backward(features, weight, index)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx, dz):  # noqa: ANN202
    dx, dw = _gradients(dz, *ctx.saved_tensors, ctx.group_size)
    db = None if ctx.bias_dtype is None else dz.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
    return dx, dw, None, db, None


operator.register_autograd(_backward, setup_context=_setup_context)


def exported(
    features: Tensor, weight: Tensor, index: Tensor, bias: Tensor | None, group_size: int
) -> Tensor:
    """The same by operators of torch: it holds the gathered features, [B, K, F]."""
    groups, fan_in = index.shape
    gathered = features.index_select(1, index.flatten().long()).unflatten(1, (groups, fan_in))
    padding = groups * group_size - weight.shape[0]
    padded = torch.nn.functional.pad(weight, (0, 0, 0, padding)).view(groups, group_size, fan_in)
    outputs = torch.einsum("bkf,kgf->bkg", gathered, padded.to(features.dtype))
    outputs = outputs.flatten(1)[:, : weight.shape[0]]
    return outputs if bias is None else outputs + bias.to(features.dtype)
