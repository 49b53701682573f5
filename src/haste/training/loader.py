"""Batches made while the device is at work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
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
    made: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    left = threading.Event()

    def put(kind: str, value: object) -> bool:
        while not left.is_set():
            try:
                made.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
        except BaseException as error:
            put("error", error)
        else:
            put("end", None)

    worker = threading.Thread(target=work, name="batches", daemon=True)
    worker.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        left.set()
        worker.join()
