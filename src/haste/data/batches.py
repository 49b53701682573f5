"""From a permutation of the training documents to what one step needs: tokens and positive labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from haste.data.ragged import Ragged
from haste.errors import ConfigError, DataError
from haste.kernels.state import Positives

if TYPE_CHECKING:
    import torch

    from haste.config import RunConfig

    Array = np.ndarray | torch.Tensor

WINDOW = 64
"""batches whose documents are sorted by length together"""


@dataclass(frozen=True)
class Batch:
    """Documents as flat tokens (`ids` int32 [T], `offsets` int64 [B + 1]) and their positives.

    `positives` is None where labels are not wanted, as in prediction; `weights` float32 [T], what each
    token counts, is None where documents are text.
    """

    ids: Array
    offsets: Array
    positives: Positives | None
    weights: Array | None = None
    longest: int | None = None
    """tokens of the longest document, known to the host"""
    of: int | None = None
    """of how many documents these are this rank's part, and the positives those of all; None for all"""

    @property
    def targets(self) -> Positives:
        """`positives` of a batch to train on; raises DataError for one without."""
        if self.positives is None:
            raise DataError(
                "a batch without positives cannot be trained on; collate it with labels."
            )
        return self.positives

    @property
    def size(self) -> int:
        """B, the number of documents, those of other ranks too."""
        return len(self.offsets) - 1 if self.of is None else self.of

    def to_torch(self, device: torch.device | str = "cpu") -> Batch:
        """The same batch as tensors on `device`, dtypes kept."""
        import torch

        return self._map(lambda array: torch.from_numpy(array).to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch as tensors in pinned memory, from which a GPU copies without synchronizing."""
        import torch

        return self._map(lambda array: torch.from_numpy(array).pin_memory())

    def to(self, device: torch.device) -> Batch:
        """A batch of tensors, on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, change: Callable[[Any], Array]) -> Batch:
        # Any: arrays or tensors, which the caller knows
        positives, weights = self.positives, self.weights
        if positives is not None:
            positives = Positives(change(positives.label_row), change(positives.doc))
        if weights is not None:
            weights = change(weights)
        return Batch(
            change(self.ids), change(self.offsets), positives, weights, self.longest, self.of
        )


@dataclass(frozen=True, eq=False)
class EpochBatches:
    """Which documents each step of each epoch sees: a function of (seed, epoch) and nothing else.

    So a run can resume from any step. The last batch of an epoch may be smaller.

    With `lengths`, int [n] by document, batches are of documents of like length: the permutation is cut
    into windows of `WINDOW` batches, each window is sorted by length and cut into batches, and these
    come in random order.
    """

    n: int
    batch_size: int
    seed: int
    lengths: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(
                f"batches: there are {self.n} documents to train on; give at least one."
            )
        if self.batch_size < 1:
            raise ConfigError(f"batches: batch_size is {self.batch_size}; it must be at least 1.")

    @classmethod
    def of(cls, config: RunConfig, documents: Ragged) -> EpochBatches:
        """Of a run on its training documents [N]."""
        training = config.training
        lengths = documents.lengths() if training.group_by_length else None
        return cls(len(documents), training.batch_size, config.seed, lengths)

    def __len__(self) -> int:
        """Steps an epoch."""
        return -(-self.n // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """int64 [n]: the permutation of the documents in an epoch (counted from 0)."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(self.n)
        if self.lengths is None:
            return order
        # only whole batches change places, so that the smaller one stays the last
        whole = self.n - self.n % self.batch_size
        for begin in range(0, whole, WINDOW * self.batch_size):
            window = order[begin : min(begin + WINDOW * self.batch_size, whole)]
            shortest_first = window[np.argsort(self.lengths[window], kind="stable")]
            window[:] = random.permutation(shortest_first.reshape(-1, self.batch_size)).ravel()
        return order

    def rows(self, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
        """The document rows (int64 [B]) of each step of an epoch, beginning with step `start`."""
        order = self.order(epoch)
        for step in range(start, len(self)):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]


def group_by_length(tokens: Ragged, batch_size: int) -> Iterator[np.ndarray]:
    """All rows in batches of documents of like length, so little of a batch is padding."""
    rows = np.argsort(tokens.lengths(), kind="stable")
    for begin in range(0, len(rows), batch_size):
        yield rows[begin : begin + batch_size]


def collate(
    tokens: Ragged,
    labels: sp.csr_matrix | None,
    rows: np.ndarray,
    row_of_label: np.ndarray | None = None,
    token_rows: np.ndarray | None = None,
) -> Batch:
    """One batch in numpy.

    `tokens`: token ids of all N documents; `labels`: CSR [N, >= L], or None for a batch without
    positives; `rows` int [B]: the documents; `row_of_label` int32 [L]: label id -> row of the layer; `token_rows`: the
    documents whose tokens are wanted, those of one of several ranks, if not all.
    """
    chosen = tokens.take(rows if token_rows is None else token_rows)
    positives = None if labels is None else batch_positives(labels, rows, row_of_label)
    longest = int(chosen.lengths().max(initial=0))
    return Batch(
        chosen.values,
        chosen.offsets,
        positives,
        chosen.weights,
        longest,
        None if token_rows is None else len(rows),
    )


def batch_positives(
    labels: sp.csr_matrix, rows: np.ndarray, row_of_label: np.ndarray | None = None
) -> Positives[np.ndarray]:
    """The positives of the documents `rows` (see `collate`), sorted by label; repeats count once."""
    chosen = Ragged(labels.indices, labels.indptr).take(rows)
    internal = chosen.values if row_of_label is None else row_of_label[chosen.values]
    # one int64 key a pair: sorting it sorts by label, then by row
    size = max(len(rows), 1)
    keys = internal.astype(np.int64) * size
    keys += np.repeat(np.arange(len(rows)), chosen.lengths())
    keys.sort()
    if len(keys):
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    label, row = np.divmod(keys, size)
    return Positives(label.astype(np.int32), row.astype(np.int32))
