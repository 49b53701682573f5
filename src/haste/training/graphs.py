"""A training step as CUDA graphs: some thousand launches that the host gives with three calls.

One set of graphs for each shape of batch, of three: the encoder's forward pass, the output layer's step,
the encoder's backward pass; a layer that cannot be captured is stepped by the host between the other two. All
values that change from step to step, and that a graph reads, are in GPU memory. The first
step of a shape is an ordinary one, which compiles and sets up what must not be set up while capturing; the
second is captured. Graphs share one pool of memory, because they never run at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from haste.config import RunConfig
from haste.data.batches import Batch
from haste.distributed import Exchange, Ranks
from haste.layers.base import StepResult
from haste.model import Model
from haste.training.padding import BatchShape, PaddedBatch

Forward = Callable[[Batch], Tensor]
LayerStep = Callable[[Tensor, Batch], StepResult]
Backward = Callable[[Tensor, Tensor], None]


def can_capture(config: RunConfig, model: Model) -> bool:
    """Whether the encoder's part of a run's steps can be captured as CUDA graphs.

    It takes a GPU, `training.graphs` and an encoder whose passes do not synchronize. Gradient checkpointing by
    torch restores the state of the random generator in the backward pass, which cannot be captured; packed
    encoders do not. Whether the output layer's part can be captured is `OutputLayer.capturable`.
    """
    return (
        config.training.graphs
        and model.device.type == "cuda"
        and model.encoder.capturable
        and (model.encoder.packed or not config.encoder.gradient_checkpointing)
    )


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all models: products keep a workspace for each stream that they ever ran on."""
    return torch.cuda.Stream(device)


@dataclass(frozen=True)
class _Captured:
    inputs: Tensor
    batch: Batch
    """views of `inputs`"""
    forward: torch.cuda.CUDAGraph
    layer: torch.cuda.CUDAGraph | None
    """None where the host launches it"""
    backward: torch.cuda.CUDAGraph
    exchange: Exchange
    result: StepResult
    """of the last replay; its gradient is what `backward` reads"""


class StepGraphs:
    """The graphs of a model's steps, by shape of batch."""

    def __init__(
        self,
        device: torch.device,
        ranks: Ranks,
        forward: Forward,
        layer: LayerStep,
        backward: Backward,
        *,
        layer_capturable: bool,
    ) -> None:
        """The parts of a step, which read nothing but their arguments, weights and values in memory; this need not
        be true of a `layer` that is not `layer_capturable`.

        Ranks may replay different graphs, or none, in one step: a capture exchanges nothing.
        """
        self.ranks = ranks
        self.forward, self.layer, self.backward = forward, layer, backward
        self.layer_capturable = layer_capturable
        # what was set up on one stream (gradients, workspaces of products) cannot be captured on another
        self.stream = _stream(device)
        self.device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._seen: set[BatchShape] = set()
        self._captured: dict[BatchShape, _Captured] = {}

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Work in here comes after all before it, and before all after it."""
        outer = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outer)
        with torch.cuda.stream(self.stream):
            yield
        outer.wait_stream(self.stream)

    def ready(self, shape: BatchShape) -> bool:
        """Whether steps of a shape are replayed from now on; if not, take an ordinary one."""
        if shape not in self._seen:
            self._seen.add(shape)
            return False
        if shape not in self._captured:
            self._captured[shape] = self._capture(shape)
        return True

    def replay(
        self, batch: PaddedBatch, between: Callable[[str], None], encoder: str, layer: str
    ) -> StepResult:
        """Take a step; `between` is called with the part that begins, `encoder` or `layer`."""
        captured = self._captured[batch.shape]
        captured.inputs.copy_(batch.flat, non_blocking=True)
        between(encoder)
        captured.forward.replay()
        between(layer)
        captured.exchange.gather()
        result = self._layer_step(captured)
        loss, dx = captured.exchange.scatter(result.loss, result.dx)
        between(encoder)
        captured.backward.replay()
        # the next step writes to the same place
        return StepResult(loss.clone(), dx)

    def forget(self) -> None:
        """Give back the memory of all graphs: steps are captured anew, each shape at its next batch."""
        self._captured.clear()
        self._pool = torch.cuda.graph_pool_handle()

    def _layer_step(self, captured: _Captured) -> StepResult:
        if captured.layer is not None:
            captured.layer.replay()
            return captured.result
        result = self.layer(captured.exchange.features, captured.batch)
        return StepResult(result.loss, captured.result.dx.copy_(result.dx))

    def _capture(self, shape: BatchShape) -> _Captured:
        inputs = torch.zeros(shape.size, dtype=torch.int32, device=self.device)
        batch = shape.view(inputs)
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with self._into(forward):
            features = self.forward(batch)
        exchange = Exchange(self.ranks, features.detach(), shape.of)
        layer = torch.cuda.CUDAGraph() if self.layer_capturable else None
        if layer is None:
            dx = torch.zeros_like(exchange.features, dtype=torch.float32)
            result = StepResult(dx.new_zeros(()), dx)
        else:
            with self._into(layer):
                result = self.layer(exchange.features, batch)
        with self._into(backward):
            self.backward(features, exchange.dx(result.dx))
        return _Captured(inputs, batch, forward, layer, backward, exchange, result)

    def _into(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
        # another thread pins the memory of batches meanwhile, which only this mode leaves it to do
        return torch.cuda.graph(
            graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"
        )
