"""What kernels and layers are given: sizes that have kernels, pairs of a batch, constants of SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray | Tensor

FanIn = Literal[16, 32, 64, 128, 256]
"""F: features that a label reads"""
GroupSize = Literal[16, 32, 64, 128]
"""G: labels that share an index set"""
FAN_INS = get_args(FanIn)
GROUP_SIZES = get_args(GroupSize)


@dataclass(frozen=True)
class Positives:
    """The positive (label, document) pairs of a batch, each once, ordered by label and then by row.

    `label` int32 [P] ascending: the layer's internal row, or where there is none the label id;
    `row` int32 [P]: the document's place in the batch, ascending within a label.
    """

    label: Array
    row: Array

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Sgd:
    """Step sizes of one update: v <- momentum v + g + weight_decay w; w <- w - lr v."""

    lr: float | Tensor
    """a tensor, fp32 of one number, for kernels only"""
    momentum: float = 0.0
    weight_decay: float = 0.0
    rounding: str = "stochastic"
