"""Arguments of kernels and layers: allowed sizes, positives of a batch, the state and constants of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray | Tensor

FanIn = Literal[16, 32, 64, 128, 256]
"""F: features per label"""
GroupSize = Literal[16, 32, 64, 128]
"""G: labels per group, which share an index set"""
FAN_INS = get_args(FanIn)
GROUP_SIZES = get_args(GroupSize)


def tiles(n: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover 0..n in order."""
    return [slice(begin, min(begin + size, n)) for begin in range(0, n, size)]


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
    """The tensors that a step updates in place: weight [L, F] fp32, bf16, fp16 or E4M3, bias [L] (bf16 beside E4M3)
    and momenta, both or none, of the bias's dtype."""

    weight: Tensor
    bias: Tensor
    momentum: Tensor | None = None
    bias_momentum: Tensor | None = None


@dataclass(frozen=True)
class StepContext:
    """What changes from step to step; random numbers are a function of (seed, step).

    With the Triton backend `lr` (fp32) and `step` (int32) may be tensors of one element on the
    layer's device: replays of a CUDA graph of the step read their current values without synchronizing.
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
