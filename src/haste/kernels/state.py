"""Arguments of kernels and layers: allowed sizes, positives of a batch, the state and constants of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, get_args

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Array = TypeVar("Array", bound="np.ndarray | Tensor")

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
class Positives(Generic[Array]):
    """The positive (label, document) pairs of a batch, each once, ordered by label and then by document.

    `label_row` int32 [P] ascending: the label's row in the layer, or without a layer its id; `doc`
    int32 [P]: the document's place in the batch, ascending within a label.
    """

    label_row: Array
    doc: Array

    def __len__(self) -> int:
        return len(self.label_row)


@dataclass(frozen=True)
class RowRange:
    """Rows begin..end of a tensor of `total` rows."""

    begin: int
    end: int
    total: int

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def whole(self) -> bool:
        """Whether these are all rows."""
        return len(self) == self.total

    def overlap(self, block: slice) -> tuple[slice, slice]:
        """What is in a block of the tensor's rows: where in the block, and where among these rows."""
        begin = min(max(block.start, self.begin), block.stop)
        end = max(min(block.stop, self.end), begin)
        inside = slice(begin - block.start, end - block.start)
        return inside, slice(max(begin - self.begin, 0), max(end - self.begin, 0))


@dataclass(frozen=True)
class LayerState:
    """The tensors that a step updates in place: weight [L, F] fp32, bf16, fp16 or E4M3, bias [L] (bf16 beside E4M3)
    and momenta, both or none, of the bias's dtype; for AdamW also those of the squared gradients, in fp32."""

    weight: Tensor
    bias: Tensor
    momentum: Tensor | None = None
    bias_momentum: Tensor | None = None
    rows: RowRange | None = None
    """which rows of a layer these are, None for all: random numbers are those of the whole layer"""
    squared_momentum: Tensor | None = None
    bias_squared_momentum: Tensor | None = None

    @property
    def first_row(self) -> int:
        """The layer's row that is the first here."""
        return 0 if self.rows is None else self.rows.begin

    @property
    def total_rows(self) -> int:
        """L of the whole layer."""
        return len(self.weight) if self.rows is None else self.rows.total


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
    """Constants of the update v <- momentum v + g + weight_decay w; w <- w - lr v.

    With `adamw` it is AdamW's, whose first beta is `momentum`; of the torch backend alone.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0
    rounding: str = "stochastic"
    adamw: bool = False
