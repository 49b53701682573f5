"""One step of training, and the optimisers it moves: what the loop repeats and benchmarks time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from haste.config import RunConfig
from haste.data.batches import Batch
from haste.distributed import Exchange
from haste.kernels.rounding import generator, seed_torch
from haste.kernels.state import StepContext
from haste.layers.base import StepResult
from haste.model import Model
from haste.training import optim
from haste.training.graphs import StepGraphs, can_capture
from haste.training.padding import PaddedBatch, Padding
from haste.training.schedule import learning_rate_factor, rewires_at

ENCODER, LAYER, REST = "encoder", "layer", "rest"
"""the parts of a step"""


@dataclass(frozen=True)
class StepOutcome:
    """The result of a step; reading a loss that is on a GPU synchronizes."""

    loss: Tensor
    """fp32 scalar, summed over batch and labels"""
    moved: int = 0
    """indices of the output layer that were rewired"""


class TrainStep:
    """Features, a step of the output layer, the encoder's backward pass and its optimisers.

    Nothing synchronizes but the count of what a rewiring moved. All random numbers are a
    function of (seed, step), those of the encoder's dropout too. Padded batches are replayed as CUDA
    graphs; with others, where connections move, and of an output layer that cannot be captured, the host
    launches each kernel.

    Of several ranks each encodes its part of the documents and steps its part of the labels; what they
    exchange lies between the parts of a step, outside of graphs.
    """

    def __init__(self, config: RunConfig, model: Model, total_steps: int) -> None:
        """`total_steps`: of the whole run, which schedules depend on."""
        self.config = config
        self.model = model
        self.total_steps = total_steps
        self.ranks = model.ranks
        self.optimizers = optim.build_optimizers(model.encoder, model.projection, config.encoder)
        device = model.device
        on_gpu = device.type == "cuda" and model.layer.capturable
        # in memory, where graphs find them; kernels are compiled for one kind of number alone
        self._lr = torch.zeros((), dtype=torch.float32, device=device) if on_gpu else None
        self._step = torch.zeros((), dtype=torch.int32, device=device) if on_gpu else None
        self._scalars: tuple[float | Tensor, int | Tensor] = (0.0, 0)
        self.graphs: StepGraphs | None = None
        if can_capture(config, model):
            self.graphs = StepGraphs(
                device, self.ranks, model.features, self._layer, self._backward,
                layer_capturable=model.layer.capturable,
            )  # fmt: skip

    def padding(self, labels: sp.csr_matrix) -> Padding | None:
        """How batches of documents with the positives `labels` [N, >= L] are to be padded, if at all."""
        if self.graphs is None:
            return None
        config = self.config
        return Padding.of(
            labels,
            config.training.batch_size,
            config.encoder.max_len,
            self.model.layer.n_labels,
            packed=self.model.encoder.packed,
            ranks=self.ranks.size,
        )

    def __call__(
        self, batch: Batch | PaddedBatch, done: int, begins: Callable[[str], None] | None = None
    ) -> StepOutcome:
        """Train on a batch of tensors (with positives), in memory or on the device, after `done` steps.

        `begins` is called with the part (ENCODER, LAYER or REST) that each piece of the step belongs to.
        """
        begins = begins or _ignore
        with self._stream():
            begins(REST)
            factor = self.factor(done)
            # documents of different ranks are different ones, and so is their dropout
            part = (self.ranks.rank,) if self.ranks.rank else ()
            seed_torch(self.config.seed, done, 4, *part)
            optim.set_learning_rate(self.optimizers, factor * self.config.encoder.learning_rate)
            self._set_scalars(factor * self.config.training.learning_rate, done)
            rewires = rewires_at(done + 1, self.total_steps, self.config.rewire)
            if isinstance(batch, PaddedBatch):
                if self.graphs is not None and not rewires and self.graphs.ready(batch.shape):
                    loss = self.graphs.replay(batch, begins, ENCODER, LAYER).loss
                    self._optimize()
                    begins(REST)
                    return StepOutcome(loss)
                batch = batch.shape.view(batch.flat.to(self.model.device, non_blocking=True))
            return self._launched(batch.to(self.model.device), done, begins, rewires=rewires)

    def factor(self, done: int) -> float:
        """Of the step sizes, after `done` steps."""
        return learning_rate_factor(done, self.total_steps, self.config.training.warmup)

    def _launched(
        self, batch: Batch, done: int, begins: Callable[[str], None], *, rewires: bool
    ) -> StepOutcome:
        begins(ENCODER)
        features = self.model.features(batch)
        exchange = Exchange(self.ranks, features.detach(), batch.size)
        begins(LAYER)
        exchange.gather()
        inputs = exchange.features
        result = self._layer(inputs, batch)
        loss, dx = exchange.scatter(result.loss, result.dx)
        begins(ENCODER)
        self._backward(features, dx)
        self._optimize()
        begins(REST)
        if not rewires:
            return StepOutcome(loss)
        random = generator(self.model.device, self.config.seed, done, 3)
        stats = self.model.layer.rewire(random, (inputs, batch.targets))
        return StepOutcome(loss, stats.moved)

    def _optimize(self) -> None:
        self.ranks.sum_gradients(optim.parameters(self.optimizers))
        optim.step(self.optimizers)

    def _layer(self, features: Tensor, batch: Batch) -> StepResult:
        lr, step = self._scalars
        return self.model.layer.step(
            features, batch.targets, StepContext(lr, self.config.seed, step)
        )

    def _backward(self, features: Tensor, gradient: Tensor) -> None:
        model = self.model
        optim.backward(model.encoder, model.projection, features, gradient)

    def _set_scalars(self, lr: float, done: int) -> None:
        if self._lr is None or self._step is None:
            self._scalars = lr, done
            return
        self._scalars = self._lr.fill_(lr), self._step.fill_(done)

    def _stream(self) -> AbstractContextManager[None]:
        return nullcontext() if self.graphs is None else self.graphs.on_stream()


def _ignore(part: str) -> None:
    pass
