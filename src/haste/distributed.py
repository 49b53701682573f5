"""The processes of one run, as torchrun starts them: who has which documents and labels, and what is exchanged.

Each process (rank) encodes its part of a batch and has its rows of the output layer. A single process is
the case of one rank, in which nothing is exchanged and no process group exists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from haste.errors import ConfigError, HasteError
from haste.kernels.state import RowRange

TIMEOUT = timedelta(hours=1)
"""for which a rank waits for another, which may be writing a checkpoint; torchrun ends all when one ends"""
_SENT_ROWS_BYTES = 64 << 20

# the names of torch 2.13, and those before
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """One of the `size` processes of a run. All of them call the same methods in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def split(self, n: int, unit: int, what: str) -> RowRange:
        """This rank's part of `n` rows in units of `unit`; raises ConfigError where a rank would have none."""
        units = -(-n // unit)
        if units < self.size:
            raise ConfigError(
                f"{what}: {n} labels in groups of {unit} are fewer than {self.size} processes; start fewer."
            )
        begin, end = (units * rank // self.size * unit for rank in (self.rank, self.rank + 1))
        return RowRange(begin, min(end, n), n)

    def share(self, n: int) -> int:
        """The number of documents of a rank when there are `n`."""
        return -(-n // self.size)

    def documents(self, rows: np.ndarray) -> np.ndarray:
        """This rank's documents of a batch `rows` [B]: as many as each other rank's, so after the last
        document of the batch it is repeated, and its features are ignored."""
        if self.size == 1:
            return rows
        share = self.share(len(rows))
        places = np.arange(self.rank * share, (self.rank + 1) * share)
        return rows[places.clip(max=len(rows) - 1)]

    def gather(self, features: Tensor, total: int) -> Tensor:
        """[total, H]: the features of all `total` documents, of which these are this rank's."""
        exchange = Exchange(self, features, total)
        exchange.gather()
        return exchange.features

    def stack(self, values: Tensor) -> Tensor:
        """[size, ...]: the tensors of all ranks, which have one shape."""
        if self.size == 1:
            return values[None]
        stacked = values.new_empty(self.size * values.numel())
        _all_gather(stacked, values.contiguous().flatten())
        return stacked.view(self.size, *values.shape)

    def sum(self, number: int) -> int:
        """The sum over ranks."""
        if self.size == 1:
            return number
        return sum(self.collect(number))

    def collect(self, value: Value) -> list[Value]:
        """The values of all ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace the gradients of parameters by their sums over ranks; sparse ones name rows."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                parameter.grad = self._sum_sparse(parameter.grad)
            else:
                dist.all_reduce(parameter.grad)

    def _sum_sparse(self, gradient: Tensor) -> Tensor:
        local = gradient.coalesce()
        rows, values = local.indices()[0], local.values()
        counts = self.collect(len(rows))
        most = max(counts)
        buffers = rows.new_zeros(most), values.new_zeros(most, *values.shape[1:])
        buffers[0][: len(rows)], buffers[1][: len(rows)] = rows, values
        there = torch.arange(most, device=rows.device) < rows.new_tensor(counts)[:, None]
        all_rows, all_values = (self.stack(buffer)[there] for buffer in buffers)
        return torch.sparse_coo_tensor(
            all_rows[None], all_values, gradient.shape, check_invariants=False
        ).coalesce()

    def blocks(self, local: Tensor, rows: RowRange) -> Iterator[Tensor]:
        """All rows of a tensor of which this rank has `local`, block by block, on the first rank; the others
        send theirs and get nothing."""
        size = max(1, _SENT_ROWS_BYTES // max(local[:1].nbytes, 1))
        counts = self.collect(len(rows))
        for rank, count in enumerate(counts):
            for begin in range(0, count, size):
                count_here = min(size, count - begin)
                if self.rank == rank:
                    block = local[begin : begin + count_here].contiguous()
                    if rank:
                        dist.send(block.view(torch.uint8), 0)
                    else:
                        yield block
                elif self.first:
                    block = local.new_empty(count_here, *local.shape[1:])
                    dist.recv(block.view(torch.uint8), rank)
                    yield block

    def agree(self, work: Callable[[], Value], *, on_first: bool = False) -> Value:
        """The result of `work`, done by each rank, or by the first for all of them.

        Where it raises a HasteError, the first rank on which it does raises it, and the others end with its
        exit code: none waits for another that is gone, and all say one thing.
        """
        if self.size == 1:
            return work()
        result, error = None, None
        if self.first or not on_first:
            try:
                result = work()
            except HasteError as raised:
                error = raised
        codes = self.collect(error.exit_code if error else None)
        failed = [rank for rank, code in enumerate(codes) if code is not None]
        if failed:
            raise error if error and self.rank == failed[0] else SystemExit(codes[failed[0]])
        # without an error `work` has given it
        return cast(Value, self.collect(result)[0] if on_first else result)


ALONE = Ranks()


class Exchange:
    """Features from all ranks, and the gradient of them back, in buffers that stay: a CUDA graph may read
    `features` [B, H] and what `scatter` returns. Of one rank alone they are what it is given."""

    def __init__(self, ranks: Ranks, local: Tensor, total: int) -> None:
        """`local` [B / ranks, H]: this rank's features; `total`: B."""
        self.ranks, self.local = ranks, local
        self.features = local
        if ranks.size > 1:
            self._gathered = local.new_empty(ranks.size * len(local), local.shape[1])
            self.features = self._gathered[:total]
            # the last column is the loss
            values = local.numel() + 1
            self._sent = local.new_zeros(ranks.size, values, dtype=torch.float32)
            self._received = self._sent.new_empty(values)

    def gather(self) -> None:
        """Read `local` of all ranks into `features`."""
        if self.ranks.size > 1:
            _all_gather(self._gathered, self.local.contiguous())

    def dx(self, dx: Tensor) -> Tensor:
        """Where `scatter` puts the gradient of `local`, given that of `features` over this rank's labels."""
        return dx if self.ranks.size == 1 else self._received[:-1].view_as(self.local)

    def scatter(self, loss: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
        """The loss over all labels, and the gradient of `local`: sums over ranks of the loss of each rank's
        labels, and of their gradient of `features`, fp32 [B, H]."""
        if self.ranks.size == 1:
            return loss, dx
        missing = len(self._gathered) - len(dx)
        padded = torch.nn.functional.pad(dx, (0, 0, 0, missing)) if missing else dx
        self._sent[:, :-1] = padded.reshape(self.ranks.size, -1)
        self._sent[:, -1] = loss
        _reduce_scatter(self._received, self._sent.flatten())
        return self._received[-1], self.dx(dx)


@contextmanager
def launched(device: str) -> Iterator[Ranks]:
    """The ranks of this run: those that torchrun, or another launcher that sets RANK, WORLD_SIZE, MASTER_ADDR
    and MASTER_PORT, has started, else one alone.

    `device`: training.device; on GPUs each rank has the one of its LOCAL_RANK. Raises ConfigError where
    there are fewer GPUs than ranks on this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} are not set; start several processes with "
            "torchrun --nproc-per-node N -m haste train CONFIG."
        )
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"training.device: {device}, but this machine has {torch.cuda.device_count()} GPUs for process "
                f"{local} of those that torchrun started here; lower --nproc-per-node."
            )
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    yield Ranks(dist.get_rank(), size)
    # after an error the others may be gone, and torchrun ends those that are not
    dist.destroy_process_group()
