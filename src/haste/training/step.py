"""One step of training, and the optimisers it moves: what the loop repeats and benchmarks time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from haste.config import RunConfig
from haste.data.batches import Batch
from haste.kernels.rounding import generator, mix
from haste.model import Model
from haste.sparsity.schedule import learning_rate_factor, rewires_at
from haste.training import optim

ENCODER, LAYER, REST = "encoder", "layer", "rest"
"""the parts of a step"""


@dataclass(frozen=True)
class StepOutcome:
    """What a step tells of itself; reading the loss of a GPU waits for it."""

    loss: Tensor
    """fp32 scalar, summed over batch and labels"""
    moved: int = 0
    """slots of the output layer that were rewired"""


class TrainStep:
    """Features, a step of the output layer, the encoder's backward pass and its optimisers.

    Nothing waits for the GPU, but for the count of what a rewiring moved. All random numbers are a
    function of (seed, step), those of the encoder's dropout too.
    """

    def __init__(self, config: RunConfig, model: Model, total_steps: int) -> None:
        """`total_steps`: of the whole run, which schedules depend on."""
        self.config = config
        self.model = model
        self.total_steps = total_steps
        self.optimizers = optim.build_optimizers(model.encoder, model.projection, config.encoder)

    def __call__(
        self, batch: Batch, done: int, begins: Callable[[str], None] | None = None
    ) -> StepOutcome:
        """Train on a batch of tensors (with positives), in memory or on the device, after `done` steps.

        `begins` is told the part (ENCODER, LAYER or REST) that each piece of the step belongs to.
        """
        begins = begins or _nobody
        config, seed = self.config, self.config.seed
        factor = self.factor(done)
        begins(REST)
        torch.manual_seed(mix(seed, done, 4))
        optim.set_learning_rate(self.optimizers, factor * config.encoder.learning_rate)
        batch = batch.to(self.model.device)
        begins(ENCODER)
        features = self.model.features(batch)
        begins(LAYER)
        given = features.detach()
        result = self.model.layer.step(
            given, batch.positives, factor * config.training.learning_rate, seed=seed, step=done
        )
        begins(ENCODER)
        # with a fused optimiser this moves the weights, too, and leaves no gradients
        features.backward(result.grad_features.to(features.dtype))
        optim.step(self.optimizers)
        begins(REST)
        if not rewires_at(done + 1, self.total_steps, config.rewire):
            return StepOutcome(result.loss)
        random = generator(self.model.device, seed, done, 3)
        stats = self.model.layer.rewire(random, given, batch.positives)
        return StepOutcome(result.loss, stats.moved)

    def factor(self, done: int) -> float:
        """Of the step sizes, after `done` steps."""
        return learning_rate_factor(done, self.total_steps, self.config.training.warmup)


def _nobody(part: str) -> None:
    pass
