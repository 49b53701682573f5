"""Batches made while the device is at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch

from haste.data.batches import Batch, collate
from haste.data.ragged import Ragged
from haste.distributed import ALONE, Ranks
from haste.training.padding import PaddedBatch, Padding

AHEAD = 4
"""batches prepared ahead"""
_END: Any = object()

Item = TypeVar("Item")


@contextmanager
def batches(
    tokens: Ragged,
    labels: sp.csr_matrix,
    rows: Iterable[np.ndarray],
    row_of_label: np.ndarray | None,
    device: torch.device,
    padding: Padding | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[Iterator[Batch | PaddedBatch]]:
    """Batches of tensors of the documents `rows`, one after the other, on the CPU.

    For a GPU another thread makes them ahead, with `padding` padded, and pins their memory. Leaving the
    context ends it. See `haste.data.batches.collate` for the other arguments.
    """
    collated = (
        collate(tokens, labels, document_rows, row_of_label, ranks.documents(document_rows))
        for document_rows in rows
    )
    if device.type != "cuda":
        yield (batch.to_torch() for batch in collated)
        return
    pinned = padding.pinned if padding else Batch.pinned
    with closing(ahead(map(pinned, collated))) as made:
        yield made


def ahead(items: Iterable[Item], depth: int = AHEAD) -> Generator[Item, None, None]:
    """The same items, made by another thread, at most `depth` of them before they are asked for.

    An exception of theirs is raised where the item would have come. Closing the iterator ends the thread.
    torch's DataLoader would make them in a process: seconds until the first batch of each epoch, each batch
    copied once more, and a draw from the default generator, which dropout uses.
    """
    source, pool = iter(items), ThreadPoolExecutor(1, thread_name_prefix="batches")
    made = deque(pool.submit(next, source, _END) for _ in range(depth))
    try:
        while (item := made.popleft().result()) is not _END:
            made.append(pool.submit(next, source, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
