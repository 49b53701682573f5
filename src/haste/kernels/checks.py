"""Arguments of kernels and layers, refused before any launch, by name, with what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from haste.errors import KernelError

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
STORED = (*FLOATS, torch.float8_e4m3fn)
"""in which weights may be stored"""


def check_tensor(
    name: str,
    value: Tensor,
    shape: Sequence[int | None],
    dtypes: Sequence[torch.dtype],
    device: torch.device | None = None,
) -> None:
    """Raise KernelError unless `value` has this shape (None: any size), one of these dtypes, this
    device, and is contiguous."""
    if not isinstance(value, Tensor):
        raise KernelError(f"{name}: expected a tensor, got {type(value).__name__}.")
    fits = value.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise KernelError(f"{name}: shape {list(value.shape)} does not fit; expected [{wanted}].")
    if value.dtype not in dtypes:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise KernelError(
            f"{name}: dtype {str(value.dtype).removeprefix('torch.')} is not allowed; use {allowed}."
        )
    if device is not None and value.device != device:
        raise KernelError(f"{name}: is on {value.device}, but the features are on {device}.")
    if not value.is_contiguous():
        raise KernelError(f"{name}: is not contiguous; call .contiguous() first.")


def check_one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise KernelError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise KernelError(
            f"{name}: {value} is not allowed; use one of {', '.join(map(str, allowed))}."
        )


def check_index(name: str, index: Tensor, size: int) -> None:
    """Raise KernelError unless all of `index` lies in [0, size)."""
    if index.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(index))
    if low < 0 or high >= size:
        raise KernelError(f"{name}: values from {low} to {high} leave the range 0 to {size - 1}.")


def check_momentum(
    weight: Tensor, bias: Tensor, momentum: Tensor | None, bias_momentum: Tensor | None
) -> None:
    """Raise KernelError unless both momenta, or none, are there and shaped like what they belong to."""
    if (momentum is None) != (bias_momentum is None):
        raise KernelError("momentum: give one for the weights and one for the biases, or neither.")
    if momentum is not None and bias_momentum is not None:
        own = (bias.dtype,)
        check_tensor("momentum", momentum, tuple(weight.shape), own, weight.device)
        check_tensor("bias_momentum", bias_momentum, tuple(bias.shape), own, weight.device)
