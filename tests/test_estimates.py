"""What is estimated is what is built."""

import numpy as np
import pytest
import torch

from haste.config import RunConfig
from haste.estimates import layer_bytes
from haste.grid import GridConfig, RunKey
from haste.labels.order import LabelOrder
from haste.labels.split import head_size
from haste.layers.base import OutputLayer
from haste.layers.build import build_layer, build_projection
from haste.presets import methods

LABELS, FEATURES = 650, 128
TRAINED = [row.name for row in methods().values() if row.kind == "trained"]


def resolved(method: str, **sections) -> RunConfig:
    grid = {"name": "grid", "datasets": ["words"], "methods": [method], **sections}
    return GridConfig.from_dict(grid).resolve(RunKey("words", method, "default", 0))


def built(config: RunConfig) -> OutputLayer:
    projection = build_projection(config, FEATURES)
    group_size, labels = config.layer.group_size, np.arange(LABELS, dtype=np.int32)
    auxiliary = {}
    if config.auxiliary.scale > 0:
        auxiliary["clusters"] = labels // config.auxiliary.cluster_size
        auxiliary["auxiliary_scale"] = lambda _: 1.0
    return build_layer(
        config,
        getattr(projection, "out_features", FEATURES),
        LabelOrder(labels, head_size(LABELS, config.layer.head_ratio, group_size), group_size),
        torch.device("cpu"),
        frequencies=np.ones(LABELS),
        n_documents=1000,
        **auxiliary,
    )


@pytest.mark.parametrize(
    ("method", "sections"),
    [
        *((method, {}) for method in TRAINED),
        ("haste", {"layer": {"dtype": "bfloat16"}}),
        ("haste", {"layer": {"dtype": "float8_e4m3"}, "training": {"momentum": 0.9}}),
        ("haste", {"layer": {"dtype": "float16"}, "training": {"optimizer": "adamw"}}),
        ("bottleneck", {"layer": {"head_ratio": 0.1}}),
    ],
)
def test_the_bytes_of_a_layer_are_those_of_the_one_that_is_built(method, sections):
    config = resolved(method, **sections)
    layer = built(config)
    assert layer_bytes(config, LABELS, FEATURES, momenta=True) == layer.layer_bytes()
    stored = sum(
        value.nbytes for name, value in layer.state_dict().items() if not name.endswith("momentum")
    )
    assert layer_bytes(config, LABELS, FEATURES) == stored
