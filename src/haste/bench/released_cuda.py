"""The released CUDA extension as a row of the benchmark, where it is installed (github.com/xmc-aalto/haste).

Only its Python functions are called. Its products get the features already transposed, which its own
layer does in each pass.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from haste.bench.problems import Part
    from haste.kernels.state import Positives


def installed() -> bool:
    """Whether the extension can be imported."""
    return importlib.util.find_spec("shared_ffi") is not None


def products(part: Part, x: Tensor, dz: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Its products for a group-shared part, without bias: out [B, L], dx [B, H] and dw [L, F]."""
    import shared_ffi

    columns = x.t().contiguous()
    arguments = (columns, part.weight, part.index, dz, part.group_size)
    return {
        "out": lambda: shared_ffi.ffi_forward(
            part.index, columns, part.weight, None, part.group_size
        ),
        "dx": lambda: shared_ffi.backward_features(*arguments).t(),
        "dw": lambda: shared_ffi.backward_weights(*arguments),
    }


def group_product(
    x: Tensor, weight: Tensor, index: Tensor, bias: Tensor, group_size: int
) -> Tensor:
    """Its differentiable product, called as `haste.kernels.reference.linear` is."""
    from shared_ffi.ops import group_ffi_mul

    return group_ffi_mul(x, weight, index, bias, gsize=group_size)


def step(
    parts: tuple[Part, ...],
    features: Tensor,
    positives: Positives[Tensor],
    lr: float,
    product: Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor],
) -> Callable[[], tuple[Tensor, Tensor]]:
    """One step of a dense head and the released tail by autograd: concatenated logits, BCE by elementwise
    passes in bf16, backward, SGD. Features are a leaf, so the encoder is not timed."""
    head, tail = parts
    index = tail.sparse_index
    weights = [torch.nn.Parameter(p) for part in parts for p in (part.weight, part.bias)]
    optimizer = torch.optim.SGD(weights, lr=lr)
    doc, label = positives.doc.long(), positives.label_row.long()

    def run() -> tuple[Tensor, Tensor]:
        leaf = features.detach().requires_grad_()
        head_logits = torch.nn.functional.linear(leaf[:, head.columns], weights[0], weights[1])
        tail_logits = product(leaf[:, tail.columns], weights[2], index, weights[3], tail.group_size)
        logits = torch.cat((head_logits, tail_logits), dim=1)
        fp32 = {"dtype": torch.float32}
        loss = logits.clamp(min=0).sum(**fp32) - logits[doc, label].sum(**fp32)
        loss = loss + logits.abs().neg().exp().add(1).log().sum(**fp32)
        return backward_and_update(loss, leaf, optimizer)

    return run


def backward_and_update(
    loss: Tensor, leaf: Tensor, optimizer: torch.optim.Optimizer
) -> tuple[Tensor, Tensor]:
    """Loss and dX of a step by autograd, whose weights `optimizer` updates; `leaf`: the features."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach(), cast(Tensor, leaf.grad)
