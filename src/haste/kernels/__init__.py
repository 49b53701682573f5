"""Products and training steps of sparse output layers; see `functional` for what is public."""

from haste.kernels.functional import (
    block_sparse_linear,
    dense_fused_step,
    fixed_fan_in_fused_step,
    fixed_fan_in_linear,
    group_fused_step,
    group_linear,
)
from haste.kernels.topk import topk

__all__ = [
    "block_sparse_linear",
    "dense_fused_step",
    "fixed_fan_in_fused_step",
    "fixed_fan_in_linear",
    "group_fused_step",
    "group_linear",
    "topk",
]
