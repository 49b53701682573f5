"""The name of a label order: all that it depends on, as the folder it lies in."""

from __future__ import annotations

import re
from typing import ClassVar

from haste.config import (
    AuxiliaryConfig,
    EncoderConfig,
    Frequencies,
    Grouping,
    GroupSize,
    HeadRatio,
    LayerConfig,
)
from haste.errors import ConfigError
from haste.settings import Seed, settings


@settings("order")
class OrderSpec:
    """What an order of labels depends on; its name is a folder below `labels/`."""

    grouping: Grouping
    head_ratio: HeadRatio
    group_size: GroupSize
    frequencies: Frequencies
    encoder: str
    seed: Seed

    PATTERN: ClassVar[str] = (
        r"(?P<grouping>[a-z_]+)-h(?P<head_ratio>\d+(\.\d+)?(e-\d+)?)-g(?P<group_size>\d+)"
        r"-(?P<frequencies>train|train_and_test)-(?P<encoder>.+)-s(?P<seed>\d+)"
    )

    @classmethod
    def of_layer(cls, layer: LayerConfig, encoder: EncoderConfig, seed: int) -> OrderSpec:
        """The order a layer needs; ungrouped patterns only need the head."""
        grouping = layer.grouping if layer.grouped else "frequency"
        of_layer = (grouping, layer.head_ratio, layer.group_size, layer.frequencies)
        return cls(*of_layer, encoder_id(encoder), seed)

    @classmethod
    def of_clusters(
        cls, auxiliary: AuxiliaryConfig, encoder: EncoderConfig, seed: int
    ) -> OrderSpec:
        """Clusters of the auxiliary loss: the semantic grouping with large groups and no head."""
        return cls("semantic", 0.0, auxiliary.cluster_size, "train", encoder_id(encoder), seed)

    @property
    def name(self) -> str:
        """The folder's name."""
        return (
            f"{self.grouping}-h{self.head_ratio:g}-g{self.group_size}"
            f"-{self.frequencies}-{self.encoder}-s{self.seed}"
        )

    @classmethod
    def parse(cls, name: str) -> OrderSpec:
        """The inverse of `name`; raises ConfigError."""
        match = re.fullmatch(cls.PATTERN, name)
        if not match:
            raise ConfigError(
                f"{name!r} is not the name of a label order, such as "
                "semantic-h0.1-g16-train-bag-all-MiniLM-L6-v2-32-s0."
            )
        numbers = {"head_ratio": float, "group_size": int, "seed": int}
        parts = match.groupdict().items()
        return cls(**{key: numbers.get(key, str)(value) for key, value in parts})


def encoder_id(encoder: EncoderConfig) -> str:
    """The name of an untrained encoder in file names: kind, model, length, and the pooling unless it is
    the usual one."""
    pooling = [] if encoder.pooling == EncoderConfig().pooling else [encoder.pooling]
    return "-".join([encoder.kind, encoder.model_name, str(encoder.max_len), *pooling])
