"""Builds the output layer of a run, and the projection before it, from the run's configuration."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from haste.config import RunConfig
from haste.distributed import ALONE, Ranks
from haste.errors import ConfigError
from haste.kernels.rounding import generator
from haste.labels.order import LabelOrder
from haste.layers.base import LayerOptions, LinearRows, OutputLayer
from haste.layers.dense import Dense
from haste.layers.head_tail import HeadTail
from haste.layers.label_tree import label_tree
from haste.layers.sharded import Shard
from haste.layers.sparse import Sparse
from haste.layers.unstructured import Unstructured
from haste.layers.wrappers import FeatureDropout, WithAuxiliary

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8_e4m3": torch.float8_e4m3fn,
}


def build_projection(config: RunConfig, n_features: int) -> nn.Module:
    """The projection between encoder and layer, trained by the encoder's optimiser.

    Bottleneck: Linear(H -> F). Learned projections: Linear(H -> 2 H), one half each for head and tail.
    Else the identity.
    """
    if config.layer.pattern == "bottleneck":
        return nn.Linear(n_features, config.layer.fan_in)
    if config.layer.features == "projections":
        return nn.Linear(n_features, 2 * n_features)
    return nn.Identity()


def build_layer(
    config: RunConfig,
    n_features: int,
    order: LabelOrder,
    device: torch.device,
    *,
    frequencies: np.ndarray | None = None,
    n_documents: int | None = None,
    clusters: np.ndarray | None = None,
    auxiliary_scale: Callable[[int | Tensor], float | Tensor] | None = None,
    ranks: Ranks = ALONE,
    drawn: bool = True,
) -> OutputLayer:
    """The output layer of a run, on `device`, with weights drawn from the run's seed; where they are not to
    be `drawn`, with buffers on the meta device.

    `n_features`: H after the projection; `order`: the layer's rows; `frequencies` int [L] by label
    id and `n_documents` for biases at the log prior; `clusters` int [L] by label id and
    `auxiliary_scale` (step -> weight) for the auxiliary loss; `ranks` share the labels. Raises ConfigError
    or KernelError.
    """
    options = layer_options(config, device)
    random = generator(device, config.seed, 0, 0) if drawn else None
    layer: OutputLayer
    if order.head:
        layer = _head_tail(config, n_features, order, options, random, ranks)
    else:
        layer = _part(
            config, config.layer.pattern, n_features, order.n_labels, options, random, 0, ranks
        )
    if config.layer.bias_init == "log_prior":
        if frequencies is None or n_documents is None:
            raise ConfigError("layer.bias_init: log_prior needs the labels' training frequencies.")
        _set_log_prior(layer, frequencies[order.labels], n_documents)
    if clusters is not None and auxiliary_scale is not None:
        cluster_of_row = torch.from_numpy(clusters[order.labels].astype(np.int32)).to(device)
        auxiliary = Dense(n_features, int(cluster_of_row.max()) + 1, options, random, ranks=ranks)
        layer = WithAuxiliary(layer, _shard(auxiliary), cluster_of_row, auxiliary_scale)
    return layer


def layer_options(config: RunConfig, device: torch.device) -> LayerOptions:
    """The options that a run's configuration names."""
    layer, rewire, training = config.layer, config.rewire, config.training
    repeats = layer.sampling == "with_replacement"
    return LayerOptions(
        dtype=DTYPES[layer.dtype],
        loss_dtype=DTYPES[layer.loss_dtype],
        loss=layer.loss,
        optimizer=training.optimizer,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        rounding=layer.rounding,
        growth=rewire.growth,
        scope=rewire.scope,
        fraction=rewire.fraction,
        threshold=rewire.threshold,
        reset_momentum=rewire.reset_momentum,
        with_replacement=repeats,
        backend=choose_backend(
            training.backend,
            device,
            ordered_repeats=training.deterministic and repeats,
            plain=layer.loss != "bce" or training.optimizer != "sgd",
        ),
        deterministic=training.deterministic,
    )


def choose_backend(
    name: str, device: torch.device, *, ordered_repeats: bool = False, plain: bool = False
) -> str:
    """The backend that `training.backend` names: auto is triton on a GPU and torch on a CPU.

    `ordered_repeats`: sums in a fixed order over index sets that name features twice, which triton does
    not support; `plain`: another loss or optimiser than its kernels have. Raises ConfigError for triton where it
    cannot run.
    """
    if name == "auto":
        return "triton" if device.type == "cuda" and not (ordered_repeats or plain) else "torch"
    if name == "triton" and plain:
        raise ConfigError(
            "training.backend: triton has neither layer.loss squared_hinge nor training.optimizer adamw; use "
            "torch or auto."
        )
    if name == "triton" and ordered_repeats:
        raise ConfigError(
            "training.backend: triton has no fixed order for features that a group names twice; with "
            "training.deterministic and layer.sampling with_replacement use torch."
        )
    if name == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(
            "training.backend: triton needs a CUDA GPU, or TRITON_INTERPRET=1 to run (slowly) in "
            "Triton's interpreter; use auto or torch."
        )
    return name


def _head_tail(
    config: RunConfig,
    n_features: int,
    order: LabelOrder,
    options: LayerOptions,
    random: torch.Generator | None,
    ranks: Ranks,
) -> HeadTail:
    whole, half = slice(0, n_features), n_features // 2
    if config.layer.features == "shared":
        head_features, tail_features = whole, whole
    else:
        # as in the released code: the tail reads the first half, the head the second
        tail_features, head_features = slice(0, half), slice(half, 2 * half)
    head_size = head_features.stop - head_features.start
    tail_size = tail_features.stop - tail_features.start
    head = _part(config, "dense", head_size, order.head, options, random, 0, ranks)
    pattern = config.layer.pattern
    tail = _part(config, pattern, tail_size, order.n_tail, options, random, 1, ranks)
    return HeadTail(head, tail, n_features, head_features, tail_features)


def _part(
    config: RunConfig,
    pattern: str,
    n_features: int,
    n_labels: int,
    options: LayerOptions,
    random: torch.Generator | None,
    part: int,
    ranks: Ranks,
) -> OutputLayer:
    settings = config.layer
    if settings.fan_in > n_features and pattern not in ("dense", "bottleneck", "label_tree"):
        raise ConfigError(
            f"layer.fan_in: {settings.fan_in} is more than the {n_features} features that "
            f"{config.method} reads; lower layer.fan_in, or take the method dense."
        )
    match pattern:
        case "dense" | "bottleneck":
            layer: OutputLayer = Dense(
                n_features, n_labels, options, random, settings.chunks, ranks
            )
        case "unstructured" | "label_tree" if ranks.size > 1:
            raise ConfigError(
                f"layer.pattern: {pattern} cannot be distributed over several processes; train it in one."
            )
        case "label_tree":
            layer = label_tree(
                n_features, n_labels, options, random, cluster_size=settings.group_size,
                shortlist=settings.shortlist, levels=settings.tree_levels,
            )  # fmt: skip
        case "unstructured":
            layer = Unstructured(n_features, n_labels, settings.fan_in, options, random)
        case _:
            layer = Sparse(
                n_features, n_labels, settings.fan_in, options, random,
                group_size=1 if pattern == "fixed_fan_in" else settings.group_size,
                block_size=settings.block_size if pattern == "block_sparse" else 1, ranks=ranks,
            )  # fmt: skip
    if settings.dropout:
        return FeatureDropout(_shard(layer), settings.dropout, part, options.backend)
    return _shard(layer)


def _shard(layer: OutputLayer) -> OutputLayer:
    if isinstance(layer, LinearRows) and layer.ranks.size > 1:
        return Shard(layer)
    return layer


def _set_log_prior(layer: OutputLayer, frequencies: np.ndarray, n_documents: int) -> None:
    """Biases log(p / (1 - p)) with p = (n_l + 1/2) / (N + 1), by row."""
    share = (frequencies + 0.5) / (n_documents + 1)
    values = torch.from_numpy(np.log(share / (1 - share)))
    begin = 0
    # the head is registered before the tail
    for part in layer.modules():
        if isinstance(part, LinearRows):
            part.bias.copy_(values[begin + part.rows.begin : begin + part.rows.end])
            begin += part.rows.total
