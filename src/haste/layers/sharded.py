"""An output layer whose labels are distributed over ranks (`haste.distributed`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from haste.kernels.state import Positives, RowRange, StepContext
from haste.layers.base import Examples, LinearRows, OutputLayer, RewireStats, StepResult


class Shard(OutputLayer):
    """All rows of a layer, of which this rank has those of `layer`.

    A step is local: its loss and dX are those of this rank's labels, to be summed over ranks
    (`haste.distributed.Exchange`). All else gives the same result on all ranks, which call it together with
    the features of the same documents. The names of tensors are those of `layer`.
    """

    layer: LinearRows

    def __init__(self, layer: LinearRows) -> None:
        super().__init__()
        self.layer = layer
        self.n_labels = layer.rows.total
        self.n_features = layer.n_features

    def step(
        self, features: Tensor, positives: Positives[Tensor], context: StepContext
    ) -> StepResult:
        """See OutputLayer."""
        return self.layer.step(features, self._from_first_row(positives), context)

    def logits(self, features: Tensor, rows: slice) -> Tensor:
        """See OutputLayer."""
        self.check(features, rows)
        logits = torch.zeros(len(features), rows.stop - rows.start, device=features.device)
        inside, local = self.layer.rows.overlap(rows)
        if local.start < local.stop:
            logits[:, inside] = self.layer.logits(features, local)
        # one rank has each column, and zero plus a number is that number
        return self.layer.ranks.stack(logits).sum(0)

    def topk(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See OutputLayer."""
        scores, rows = self.layer.topk(features, k)
        rows = torch.where(rows < 0, rows, rows + self.layer.rows.begin)
        ranks = self.layer.ranks
        scores, places = ranks.stack(scores).transpose(0, 1).flatten(1).topk(k)
        return scores, ranks.stack(rows).transpose(0, 1).flatten(1).gather(1, places)

    def rewire(self, random: torch.Generator, examples: Examples | None = None) -> RewireStats:
        """See OutputLayer."""
        if examples is not None:
            examples = examples[0], self._from_first_row(examples[1])
        return self.layer.rewire(random, examples)

    def add_to_bias(self, offset: float) -> None:
        """See OutputLayer."""
        self.layer.add_to_bias(offset)

    def state_dict(  # type: ignore[override]  # torch has two overloads, both of which this passes on
        self, *args: Any, **options: Any
    ) -> dict[str, Any]:
        """That of `layer`."""
        return self.layer.state_dict(*args, **options)

    def row_ranges(self) -> dict[str, RowRange]:
        """See OutputLayer."""
        return {name: self.layer.row_range(name) for name in self.layer.state_dict()}

    def _from_first_row(self, positives: Positives[Tensor]) -> Positives[Tensor]:
        """Rows counted from this rank's first; those of other ranks are outside, and ignored by kernels."""
        return Positives(positives.label_row - self.layer.rows.begin, positives.doc)
