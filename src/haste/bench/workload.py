"""What a row of the scale benchmark trains: a model of random weights, and random documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch

from haste.bench.documents import PublishedStatistics, draw_labels, draw_tokens
from haste.config import RunConfig
from haste.data.ragged import Ragged
from haste.distributed import ALONE, Ranks
from haste.encoders.registry import DTYPES
from haste.encoders.transformer import transformer_encoder
from haste.errors import ConfigError
from haste.labels.order import LabelOrder
from haste.labels.split import head_size
from haste.model import Model, assemble

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STEPS = 12
"""timed steps of a row"""


@dataclass(frozen=True)
class Workload:
    """What a row trains."""

    config: RunConfig
    statistics: PublishedStatistics
    architecture: Any
    """transformers' configuration of the encoder"""
    steps: int = STEPS
    profiled: bool = False

    @property
    def head(self) -> int:
        """Labels of the dense head."""
        layer = self.config.layer
        return head_size(self.statistics.labels, layer.head_ratio, layer.group_size)

    @property
    def order(self) -> LabelOrder:
        """Labels in their own order, the head first."""
        labels = np.arange(self.statistics.labels, dtype=np.int32)
        return LabelOrder(labels, self.head, self.config.layer.group_size)

    def documents(self) -> tuple[Ragged, sp.csr_matrix]:
        """Tokens and positives, by row of the layer, of as many documents as its steps take."""
        random = np.random.default_rng(self.config.seed)
        n = self.config.training.batch_size * self.steps
        vocabulary = self.architecture.vocab_size
        tokens = draw_tokens(self.statistics, n, self.config.encoder.max_len, vocabulary, random)
        return tokens, draw_labels(self.statistics, n, self.head, random)

    def build(self, device: torch.device, ranks: Ranks = ALONE) -> Model:
        """The model, with random weights."""
        config = self.config
        dtype = DTYPES[config.encoder.dtype]
        transformer = random_transformer(self.architecture, dtype, device)
        encoder = transformer_encoder(transformer, config.encoder)
        auxiliary: dict[str, Any] = {}
        if config.auxiliary.scale > 0:
            # at its full weight, as at the start of a run
            labels = np.arange(self.statistics.labels, dtype=np.int32)
            auxiliary["clusters"] = labels // config.auxiliary.cluster_size
            auxiliary["auxiliary_scale"] = lambda _: config.auxiliary.scale
        return assemble(config, encoder, self.order, ranks=ranks, **auxiliary)


def architecture(model: str) -> Any:
    """The configuration of a pretrained encoder, by its name; raises ConfigError for an unknown one."""
    from transformers import BertConfig, RobertaConfig

    if model == "bert-base-uncased":
        return BertConfig()
    if model == "paraphrase-distilroberta-base-v2":
        return RobertaConfig(
            vocab_size=50_265, num_hidden_layers=6, max_position_embeddings=514, type_vocab_size=1
        )
    raise ConfigError(
        f"encoder.model: {model} has no shape in the scale benchmark; use bert-base-uncased or "
        "paraphrase-distilroberta-base-v2."
    )


def random_transformer(shape: Any, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """An untrained model of transformers."""
    from transformers import AutoModel

    with device:
        return AutoModel.from_config(shape, dtype=dtype).to(device)
