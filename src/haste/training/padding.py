"""Batches of few fixed shapes in one array: one copy to the GPU, and what reads them can be captured once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from haste.data.batches import Batch
from haste.encoders.base import SPARE
from haste.kernels.state import Positives

if TYPE_CHECKING:
    import torch

LENGTHS = 8
"""different lengths of padded batches"""
BUDGETS = 32
"""different numbers of tokens of packed batches, of which few are likely: documents of different length
are drawn together"""
ALIGNED = 32
"""elements to whose multiples parts of the array are rounded up: 128 bytes"""
HEADROOM = 1.25
DEVIATIONS = 6
"""room for positives: `HEADROOM` times those of an average batch, and `DEVIATIONS` standard deviations"""


@dataclass(frozen=True)
class BatchShape:
    """Sizes of a padded batch. Its parts are int32, one after the other: offsets, ids, label, row."""

    documents: int
    """B, or of several ranks this one's part of them"""
    length: int
    """tokens of a document, at most"""
    pairs: int
    """room for positives"""
    tokens: int
    """room for the tokens of these documents"""
    of: int
    """B, those of other ranks too"""

    def parts(self) -> list[slice]:
        """The slices of offsets, ids, label and row."""
        slices, begin = [], 0
        for size in (self.documents + 1, self.tokens, self.pairs, self.pairs):
            slices.append(slice(begin, begin + size))
            begin += -(-size // ALIGNED) * ALIGNED
        return slices

    @property
    def size(self) -> int:
        """Elements of the whole array."""
        return -(-self.parts()[-1].stop // ALIGNED) * ALIGNED

    def pack(self, batch: Batch, pad_label: int) -> np.ndarray:
        """int32 [size] with the parts of a batch in numpy; places without a positive name the label
        `pad_label`, which is larger than any."""
        flat = np.zeros(self.size, np.int32)
        offsets, ids, label, row = self.parts()
        flat[label] = pad_label
        positives = batch.targets
        for part, values in (
            (offsets, batch.offsets),
            (ids, batch.ids),
            (label, positives.label_row),
            (row, positives.doc),
        ):
            flat[part.start : part.start + len(values)] = values
        return flat

    def view(self, flat: torch.Tensor) -> Batch:
        """The batch whose parts are slices of `flat`, int32 [size], on any device; nothing is copied."""
        offsets, ids, label, row = (flat[part] for part in self.parts())
        return Batch(ids, offsets, Positives(label, row), None, self.length, self.of)


@dataclass(frozen=True)
class PaddedBatch:
    """A batch of one of the fixed shapes."""

    shape: BatchShape
    flat: torch.Tensor
    """int32 [shape.size]"""

    @property
    def size(self) -> int:
        """B, the number of documents, those of other ranks too."""
        return self.shape.of


@dataclass(frozen=True)
class Padding:
    """Which shape a batch gets, if any."""

    documents: int
    """of a whole batch; smaller ones stay as they are"""
    pairs: int
    """room for positives; a batch of more stays as it is"""
    multiple: int
    """to which the length of the longest document is rounded up, or with `packed` the number of all tokens"""
    max_len: int
    pad_label: int
    """the label named where there is no positive: L, larger than any"""
    packed: bool = False
    """documents lie end to end, and only the last is followed by padding"""

    @classmethod
    def of(
        cls,
        labels: sp.csr_matrix,
        batch_size: int,
        max_len: int,
        n_labels: int,
        *,
        packed: bool = False,
        ranks: int = 1,
    ) -> Padding:
        """For batches of documents of at most `max_len` tokens with the positives `labels` [N, >= L], that as
        many `ranks` share."""
        counts = np.diff(labels.indptr)
        likely = batch_size * counts.mean() + DEVIATIONS * counts.std() * batch_size**0.5
        pairs = max(HEADROOM * batch_size * counts.mean(), likely)
        pairs = -(-int(pairs) // ALIGNED) * ALIGNED + ALIGNED
        budget = max_len * min(max(1, batch_size // ranks // BUDGETS), SPARE)
        multiple = budget if packed else max(1, max_len // LENGTHS)
        return cls(batch_size, pairs, multiple, max_len, n_labels, packed)

    def shape_of(self, batch: Batch) -> BatchShape | None:
        """The shape of a batch in numpy; None where it has none of them."""
        positives = batch.positives
        if batch.size != self.documents or batch.weights is not None or positives is None:
            return None
        if len(positives) > self.pairs:
            return None
        documents = len(batch.offsets) - 1
        tokens = self.tokens_of(np.diff(batch.offsets))
        length = self.max_len if self.packed else tokens // documents
        return BatchShape(documents, length, self.pairs, tokens, batch.size)

    def tokens_of(self, lengths: np.ndarray) -> int:
        """Tokens, with padding, of a batch of documents of these lengths."""
        size = lengths.sum() if self.packed else lengths.max()
        size = int(-(-size // self.multiple) * self.multiple)
        return size if self.packed else len(lengths) * min(size, self.max_len)

    def pinned(self, batch: Batch) -> Batch | PaddedBatch:
        """A batch in numpy as tensors in pinned memory, padded where it has a shape."""
        import torch

        shape = self.shape_of(batch)
        if shape is None:
            return batch.pinned()
        flat = torch.from_numpy(shape.pack(batch, self.pad_label)).pin_memory()
        return PaddedBatch(shape, flat)
