"""What kernels and layers are given: sizes that have kernels, pairs of a batch, the state of a step."""

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
    """The positive (label, document) pairs of a batch, each once, ordered by label and then by document.

    `label_row` int32 [P] ascending: the label's row in the layer, or without a layer its id; `doc`
    int32 [P]: the document's place in the batch, ascending within a label.
    """

    label_row: Array
    doc: Array

    def __len__(self) -> int:
        return len(self.label_row)


@dataclass(frozen=True)
class LayerState:
    """What a step trains, in place: weight [L, F] fp32, bf16, fp16 or E4M3, bias [L] (bf16 beside E4M3)
    and momenta, both or none, of the bias's dtype."""

    weight: Tensor
    bias: Tensor
    momentum: Tensor | None = None
    bias_momentum: Tensor | None = None


@dataclass(frozen=True)
class StepContext:
    """What changes from step to step; random numbers are a function of (seed, step).

    With the Triton backend `lr` (fp32) and `step` (int32) may be tensors of one number on the layer's
    device: a CUDA graph of the step is replayed with what they hold then, and nothing synchronizes.
    """

    lr: float | Tensor
    seed: int
    step: int | Tensor


@dataclass(frozen=True)
class Sgd:
    """Constants of the update v <- momentum v + g + weight_decay w; w <- w - lr v."""

    momentum: float = 0.0
    weight_decay: float = 0.0
    rounding: str = "stochastic"
