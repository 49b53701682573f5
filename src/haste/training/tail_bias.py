"""Bringing the scores of head and tail to one scale, by the validation split.

Head and tail train under one loss, each label by itself, so nothing makes their scores agree on documents
that neither has seen: the tail, which reads few features and has few positives, can be too sure of itself.
One number added to all scores of the tail puts that right without training anything.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from haste.data.ragged import Ragged
from haste.errors import ConfigError
from haste.layers.base import OutputLayer
from haste.layers.head_tail import HeadTail
from haste.layers.wrappers import WrappedLayer
from haste.metrics.metrics import quick_metrics
from haste.metrics.truth import Truth
from haste.model import Model

log = logging.getLogger(__name__)

OFFSETS: Sequence[float] = tuple(np.arange(-5.0, 5.01, 0.25).tolist())
"""logits that are tried"""
DEPTH = 5
"""predictions that the metrics read"""


def tune_tail_bias(model: Model, tokens: Ragged, truth: Truth) -> float:
    """Add to all scores of the tail the one of OFFSETS with which documents `tokens` [N] score best.

    The best: largest mean of P@1, P@5 and PSP@5, of equal ones the smallest. Returns it. Raises
    ConfigError for a layer that has no head and tail.
    """
    parts = _head_and_tail(model.layer)
    ids, scores, tail = _best_of_each(model, parts, tokens)
    mean_by_offset = {}
    for offset in sorted(OFFSETS, key=abs):
        order = np.argsort(-(scores + offset * tail), axis=1, kind="stable")[:, :DEPTH]
        best = np.take_along_axis(ids, order, axis=1)
        metrics = quick_metrics(best, truth.positives, truth.inverse_propensity)
        mean_by_offset[offset] = sum(metrics.values()) / len(metrics)
    chosen = max(mean_by_offset, key=lambda offset: mean_by_offset[offset])
    parts.tail.add_to_bias(chosen)
    log.info(
        "offset of the tail %+.2f: mean of P@1, P@5 and PSP@5 on validation %.2f, without %.2f",
        chosen,
        mean_by_offset[chosen],
        mean_by_offset[0.0],
    )
    return chosen


def _head_and_tail(layer: OutputLayer) -> HeadTail:
    while isinstance(layer, WrappedLayer):
        layer = layer.layer
    if not isinstance(layer, HeadTail):
        raise ConfigError(
            "training.tune_tail_bias: offsets the tail against the head, and this layer has none; set "
            "layer.head_ratio above 0."
        )
    return layer


@torch.no_grad()
def _best_of_each(
    model: Model, parts: HeadTail, tokens: Ragged
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids int64 and scores fp32 [N, 2 DEPTH]: the best of the head, then those of the tail, -1 and -inf where
    there are fewer; and which are of the tail, bool."""
    border = parts.head.n_labels
    ids = np.full((len(tokens), 2 * DEPTH), -1, np.int64)
    scores = np.full(ids.shape, -np.inf, np.float32)
    for rows, features in model.features_of(tokens):
        for part, read, first, columns in (
            (parts.head, parts.head_features, 0, slice(0, DEPTH)),
            (parts.tail, parts.tail_features, border, slice(DEPTH, None)),
        ):
            best, rows_of_part = part.topk(features[:, read].contiguous(), DEPTH)
            label_rows = rows_of_part.cpu().numpy()
            labels = model.order.labels[label_rows + first]
            ids[rows, columns] = np.where(label_rows < 0, -1, labels)
            scores[rows, columns] = best.cpu().numpy()
    tail = np.zeros(ids.shape, bool)
    tail[:, DEPTH:] = True
    return ids, scores, tail
