"""Checks of the arguments of kernels and layers, before any launch; errors name the argument and what is
allowed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from numbers import Integral
from typing import TypeVar

import torch
from torch import Tensor

from haste.errors import KernelError
from haste.kernels.rounding import FP8, ROUNDINGS
from haste.kernels.state import LayerState, Positives, Sgd, StepContext

Value = TypeVar("Value")

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
STORED = (*FLOATS, FP8)
"""dtypes in which weights may be stored"""
BACKENDS = ("triton", "torch")
LOSS_DTYPES = (torch.float32, torch.bfloat16)


def check_tensor(
    name: str,
    value: Tensor,
    shape: Sequence[int | None],
    dtypes: Sequence[torch.dtype],
    device: torch.device | None = None,
    *,
    contiguous: bool = True,
) -> None:
    """Raise KernelError unless `value` has this shape (None: any size), one of these dtypes, this
    device, and is contiguous (unless that is not asked for)."""
    if not isinstance(value, Tensor):
        raise KernelError(f"{name}: expected a tensor, got {type(value).__name__}.")
    fits = value.ndim == len(shape) and all(
        expected in (None, size) for expected, size in zip(shape, value.shape, strict=True)
    )
    if not fits:
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise KernelError(f"{name}: shape {list(value.shape)} does not fit; expected [{expected}].")
    if value.dtype not in dtypes:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise KernelError(
            f"{name}: dtype {str(value.dtype).removeprefix('torch.')} is not allowed; use {allowed}."
        )
    if device is not None and value.device != device:
        raise KernelError(f"{name}: is on {value.device}, but the features are on {device}.")
    if contiguous and not value.is_contiguous():
        raise KernelError(f"{name}: is not contiguous; call .contiguous() first.")


def check_one_of(name: str, value: object, allowed: Sequence[Value]) -> Value:
    """The one of `allowed` that `value` equals, so 16 for NumPy's 16; raises KernelError for none."""
    for choice in allowed:
        if value == choice:
            return choice
    raise KernelError(f"{name}: {value} is not allowed; use one of {', '.join(map(str, allowed))}.")


def check_index(name: str, index: Tensor, size: int) -> None:
    """Raise KernelError unless all of `index` lies in [0, size)."""
    if index.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(index))
    if low < 0 or high >= size:
        raise KernelError(f"{name}: values from {low} to {high} leave the range 0 to {size - 1}.")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise KernelError unless `value` is an int or float in [low, high], which NaN is not."""
    if not isinstance(value, int | float) or not low <= value <= high:
        raise KernelError(
            f"{name}: {value!r} is not allowed; use an int or float from {low:g} to {high:g}."
        )


def check_share(name: str, value: object) -> None:
    """Raise KernelError unless `value` is an int or float in [0, 1)."""
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise KernelError(
            f"{name}: {value!r} is not allowed; use an int or float from 0 to below 1."
        )


def check_count(name: str, value: object) -> int:
    """`value` as an int, which may be NumPy's; raises KernelError unless it is an integer of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise KernelError(f"{name}: {value!r} is not allowed; use an integer of at least 1.")
    return int(value)


def check_inputs(
    name: str,
    value: object,
    n_features: int,
    device: torch.device,
    dims: int | None = 2,
    *,
    allow_empty: bool = False,
) -> None:
    """Raise KernelError unless `value` is a floating-point tensor of `dims` dimensions (None: any), the
    last of size `n_features`, of at least one row unless `allow_empty`, on the device of the layer."""
    if not isinstance(value, Tensor):
        raise KernelError(f"{name}: expected a tensor, got {type(value).__name__}.")
    fits = value.ndim == dims or (dims is None and value.ndim > 0)
    if not fits or value.shape[-1] != n_features or not (allow_empty or value.numel()):
        expected = "[..., " if dims is None else "[" + "at least 1, " * (dims - 1)
        raise KernelError(
            f"{name}: shape {list(value.shape)} does not fit; expected {expected}{n_features}]."
        )
    check_one_of(f"{name}: dtype", value.dtype, FLOATS)
    if value.device != device:
        raise KernelError(f"{name}: is on {value.device}, but the layer is on {device}.")


def check_labels(rows: slice, n_labels: int) -> None:
    """Raise KernelError unless `rows` is a slice of labels with a begin and an end among `n_labels`."""
    bounds = (rows.start, rows.stop)
    known = all(isinstance(bound, Integral) for bound in bounds) and rows.step in (None, 1)
    if not known or not 0 <= rows.start < rows.stop <= n_labels:
        raise KernelError(
            f"rows: {rows} is not allowed; use slice(begin, end) with 0 <= begin < end <= {n_labels}."
        )


def check_rows(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    dense: bool = False,
    allow_empty: bool = False,
) -> None:
    """Raise KernelError unless features [B, H], weight [L, F], F = H if `dense`, and bias [L] make a layer;
    features may have any strides, and B may be 0 if `allow_empty`."""
    check_tensor("features", features, (None, None), FLOATS, contiguous=False)
    check_inputs("features", features, features.shape[1], features.device, allow_empty=allow_empty)
    row_size = features.shape[1] if dense else None
    check_tensor("weight", weight, (None, row_size), STORED, features.device)
    if weight.numel() == 0:
        raise KernelError(f"weight: shape {list(weight.shape)} does not fit; it has no weights.")
    if weight.shape[1] > features.shape[1]:
        raise KernelError(
            f"weight: a fan-in of {weight.shape[1]} is more than the {features.shape[1]} features."
        )
    if bias is not None:
        dtype = torch.bfloat16 if weight.dtype == FP8 else weight.dtype
        check_tensor("bias", bias, (len(weight),), (dtype,), features.device)


def check_groups(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor | None,
    group_size: int,
    block_size: int = 1,
    *,
    allow_empty: bool = False,
) -> None:
    """As `check_rows`, for labels in groups: index int32 [K, F / block_size], K = ceil(L / group_size)."""
    check_rows(features, weight, bias, allow_empty=allow_empty)
    n_labels, fan_in = weight.shape
    if fan_in % block_size:
        raise KernelError(f"block_size: {block_size} does not divide the fan-in, {fan_in}.")
    groups = -(-n_labels // group_size)
    check_tensor("index", index, (groups, fan_in // block_size), (torch.int32,), features.device)


def check_positives(positives: Positives[Tensor], batch: int, device: torch.device) -> None:
    """Raise KernelError unless label_row and doc are int32 [P], label_row ascends, and documents lie in the batch.

    Values are checked on a CPU only: reading them on a GPU would synchronize.
    """
    label_row, doc = positives.label_row, positives.doc
    check_tensor("positives.label_row", label_row, (None,), (torch.int32,), device)
    check_tensor("positives.doc", doc, (len(label_row),), (torch.int32,), device)
    if doc.device.type == "cpu":
        check_index("positives.doc", doc, batch)
        if (label_row[1:] < label_row[:-1]).any():
            raise KernelError("positives.label_row: not ascending; order the pairs by label.")


def check_learning_rate(context: StepContext) -> None:
    """Raise KernelError for a learning rate that is out of range; a tensor is not read."""
    if not isinstance(context.lr, Tensor):
        check_number("lr", context.lr, 0, sys.float_info.max)


def check_sgd(sgd: Sgd) -> None:
    """Raise KernelError for constants of SGD or AdamW that are out of range."""
    if sgd.adamw:
        # it divides by 1 - momentum^t
        check_share("momentum", sgd.momentum)
    else:
        check_number("momentum", sgd.momentum, 0, 1)
    check_number("weight_decay", sgd.weight_decay, 0, sys.float_info.max)
    check_one_of("rounding", sgd.rounding, ROUNDINGS)


def check_momentum(state: LayerState, sgd: Sgd) -> None:
    """Raise KernelError unless both momenta, or neither, are given, in the shapes of weight and bias, and for AdamW
    those of the squared gradients, too."""
    momentum, bias_momentum, bias = state.momentum, state.bias_momentum, state.bias
    if (momentum is None) != (bias_momentum is None):
        raise KernelError("momentum: give one for the weights and one for the biases, or neither.")
    if sgd.adamw and momentum is None:
        raise KernelError(
            "momentum: AdamW needs it; give one for the weights and one for the biases."
        )
    if momentum is not None and bias_momentum is not None:
        dtypes = (bias.dtype,)
        check_tensor("momentum", momentum, tuple(state.weight.shape), dtypes, bias.device)
        check_tensor("bias_momentum", bias_momentum, tuple(bias.shape), dtypes, bias.device)
    if sgd.adamw:
        for name, value, of in (
            ("squared_momentum", state.squared_momentum, state.weight),
            ("bias_squared_momentum", state.bias_squared_momentum, bias),
        ):
            check_tensor(name, value, tuple(of.shape), (torch.float32,), bias.device)  # type: ignore[arg-type]  # None is said
