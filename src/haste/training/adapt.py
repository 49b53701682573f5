"""What a run's settings become on its data: a step that its frequent labels bear, and enough steps."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from haste.config import RunConfig
from haste.encoders.bag import FEATURE_SCALE
from haste.encoders.registry import feature_size
from haste.inputs import RunInputs

log = logging.getLogger(__name__)


def adapted(config: RunConfig, inputs: RunInputs) -> RunConfig:
    """`config` with the step size and the epochs that `training.stable_step` and `training.min_steps` ask for."""
    training = config.training
    n_documents = len(inputs.tokens.splits["train"])
    epochs = training.epochs_on(n_documents)
    rate = training.learning_rate
    if training.stable_step and training.optimizer == "sgd":
        size = feature_size(config.encoder, config.inputs.model, inputs.tokens)
        rate = min(rate, largest_step(config, inputs.label_frequencies, n_documents, size))
    if (rate, epochs) != (training.learning_rate, training.epochs):
        log.info("on these %d documents: %d epochs, learning rate %.2g", n_documents, epochs, rate)
    return replace(config, training=replace(training, learning_rate=rate, epochs=epochs))


def largest_step(
    config: RunConfig, frequencies: np.ndarray, n_documents: int, n_features: int
) -> float:
    """Half the step size at which SGD on the most frequent label's weights begins to diverge.

    `frequencies` int [L]: training documents of each label, some above 0; `n_features`: H of the encoder.

    The loss is summed over a batch, so its curvature along the weights of a label with frequency p is at
    most B p (1 - p) |h|^2, where |h|^2 is that of the features it reads and of its bias, 1. With momentum m,
    SGD diverges above 2 (1 + m) over that.
    """
    layer, training = config.layer, config.training
    # no label has a variance above that of half of the documents
    share = min(frequencies.max() / n_documents, 0.5)
    if layer.features == "private":
        reads = n_features // 2
    else:
        reads = layer.fan_in if layer.sparse and not layer.head_ratio else n_features
    curvature = training.batch_size * share * (1 - share) * (1 + reads * FEATURE_SCALE**2)
    return (1 + training.momentum) / curvature
