"""The files that a run reads, each of them once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from haste.config import RunConfig
from haste.data.corpus import Corpus, load_corpus
from haste.data.tokens import Tokens, load_tokens
from haste.errors import ConfigError, DataError
from haste.labels.frequency import count_labels
from haste.labels.order import LabelOrder


@dataclass(frozen=True)
class RunInputs:
    """What a model is built from and trained on."""

    corpus: Corpus
    tokens: Tokens
    order: LabelOrder
    """of the output layer's rows"""
    clusters: np.ndarray | None
    """int32 [L]: label id -> cluster of the auxiliary loss; None without that"""

    @classmethod
    def load(cls, config: RunConfig) -> RunInputs:
        """Read them; raises ConfigError or DataError where one is missing, damaged or of another kind
        than the run's settings say."""
        corpus = load_corpus(config.inputs.corpus)
        tokens = load_tokens(config.inputs.tokens, corpus.directory)
        cut_to, max_len = tokens.info.max_len, config.encoder.max_len
        if not tokens.info.weighted and cut_to != max_len:
            raise ConfigError(
                f"encoder.max_len: {max_len}, but the documents in {config.inputs.tokens} were cut to "
                f"{cut_to} tokens; set encoder.max_len: {cut_to}, or make them again: haste tokenize."
            )
        order = _order(config, corpus.info.n_labels)
        return cls(corpus, tokens, order, _clusters(config, order))

    @cached_property
    def train_positives(self) -> sp.csr_matrix:
        """float32 CSR [N, L + E] of ones."""
        return self.corpus.positives("train")

    @cached_property
    def label_frequencies(self) -> np.ndarray:
        """int64 [L + E]: training documents that have each label."""
        return count_labels(self.train_positives)


def _clusters(config: RunConfig, order: LabelOrder) -> np.ndarray | None:
    if config.auxiliary.scale == 0:
        return None
    if config.inputs.clusters is None:
        raise ConfigError(
            f"auxiliary.scale: {config.auxiliary.scale:g}, but without inputs.clusters there are no "
            "clusters of labels; make them with haste group, or set auxiliary.scale: 0."
        )
    same_file = config.inputs.clusters == config.inputs.order
    return (order if same_file else LabelOrder.load(config.inputs.clusters)).clusters()


def _order(config: RunConfig, n_labels: int) -> LabelOrder:
    if config.inputs.order is None:
        if config.layer.head_ratio > 0:
            raise ConfigError(
                f"layer.head_ratio: {config.layer.head_ratio:g}, but without inputs.order nothing says "
                "which labels are the head; make an order with haste group, or set layer.head_ratio: 0."
            )
        return LabelOrder.identity(n_labels)
    order = LabelOrder.load(config.inputs.order)
    order.check_tail(config.inputs.order)
    if order.n_labels != n_labels:
        raise DataError(
            f"{config.inputs.order}: orders {order.n_labels} labels, the corpus has {n_labels}. "
            "Make it again: haste group."
        )
    if config.layer.grouped and order.group_size != config.layer.group_size:
        raise ConfigError(
            f"layer.group_size: {config.layer.group_size}, but {config.inputs.order} has groups "
            f"of {order.group_size}."
        )
    return order
