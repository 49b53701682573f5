"""A whole classifier: encoder, projection, output layer, and the labels its rows stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from haste.config import RunConfig
from haste.data.batches import Batch, collate, group_by_length
from haste.data.ragged import Ragged
from haste.distributed import ALONE, Ranks
from haste.encoders.base import Encoder
from haste.encoders.registry import build_encoder, restore_encoder
from haste.errors import DataError
from haste.files import reading
from haste.inputs import RunInputs
from haste.kernels.rounding import mix
from haste.kernels.state import RowRange
from haste.labels.order import LabelOrder
from haste.layers.base import OutputLayer
from haste.layers.build import build_layer, build_projection
from haste.layers.wrappers import auxiliary_scale
from haste.tensor_file import Blocks, load_tensors, save_tensors


@dataclass
class Model:
    """What a run trains and a prediction needs; all on one device."""

    encoder: Encoder
    projection: nn.Module
    layer: OutputLayer
    order: LabelOrder
    """of the layer's rows"""
    ranks: Ranks = ALONE
    """that share documents and labels; all of them predict together"""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    def features(self, batch: Batch) -> Tensor:
        """[B, H]: what the output layer reads, with a graph where one is wanted."""
        encoded = self.encoder(batch.ids, batch.offsets, batch.weights, batch.longest)
        return self.projection(encoded)

    def train(self, on: bool = True) -> None:
        """Switch the dropout of encoder and projection on or off."""
        self.encoder.train(on)
        self.projection.train(on)

    @torch.no_grad()
    def predict(
        self,
        tokens: Ragged,
        k: int,
        batch_size: int = 256,
        tick: Callable[[int], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Label ids int32 [N, k] and scores fp32 [N, k] (logits) of all documents, best first.

        Where there are fewer than k labels the rest is -1. B x L is never in memory. `tick` is called with the
        number of documents done.
        """
        done = 0
        ids = np.full((len(tokens), k), -1, np.int32)
        scores = np.full((len(tokens), k), -np.inf, np.float32)
        for rows, features in self.features_of(tokens, batch_size):
            best, rows_of_layer = self.layer.topk(features, k)
            label_rows = rows_of_layer.cpu().numpy()
            ids[rows] = np.where(label_rows < 0, -1, self.order.labels[label_rows])
            scores[rows] = best.cpu().numpy()
            done += len(rows)
            if tick:
                tick(done)
        return ids, scores

    def features_of(
        self, tokens: Ragged, batch_size: int = 256
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Rows of `tokens` in batches of like length, and their features [B, H] without dropout, all of them
        on each rank."""
        self.train(False)
        for rows in group_by_length(tokens, batch_size):
            batch = collate(tokens, None, rows, token_rows=self.ranks.documents(rows))
            features = self.features(batch.to_torch(self.device))
            yield rows, self.ranks.gather(features, len(rows))

    def tensors(self, *, momenta: bool) -> dict[str, Tensor]:
        """All tensors by name: to be saved, or loaded into. `momenta` are only needed to go on."""
        return {
            f"{part}.{name}": value
            for part, module in self.parts().items()
            for name, value in module.state_dict().items()
            if momenta or not name.endswith("momentum")
        }

    def parts(self) -> dict[str, nn.Module]:
        """The modules that have tensors, by the first part of those's names."""
        return {"encoder": self.encoder, "projection": self.projection, "layer": self.layer}

    def row_ranges(self) -> dict[str, RowRange]:
        """Of the tensors of which this rank has only some rows: which."""
        return {f"layer.{name}": rows for name, rows in self.layer.row_ranges().items()}

    def whole_tensors(self, *, momenta: bool) -> dict[str, Tensor | Blocks]:
        """All tensors as one rank would have them, whose blocks the first rank gets from all."""
        tensors = self.tensors(momenta=momenta)
        whole: dict[str, Tensor | Blocks] = dict(tensors)
        for name, rows in self.row_ranges().items():
            if name in tensors:
                part = tensors[name]
                shape = (rows.total, *part.shape[1:])
                whole[name] = Blocks(shape, part.dtype, self.ranks.blocks(part, rows))
        return whole

    def save(self, path: Path) -> None:
        """Write all weights and indices as safetensors."""
        save_tensors(path if self.ranks.first else None, self.whole_tensors(momenta=False))
        # until the first rank has written it
        self.ranks.collect(None)

    def load(self, path: Path) -> None:
        """Read what `save` wrote; raises DataError when it is missing, damaged or does not fit."""
        values, _ = load_tensors(path, rows=self.row_ranges())
        copy_into(self.tensors(momenta=False), values, path)


def build_model(
    config: RunConfig,
    inputs: RunInputs,
    device: torch.device,
    total_steps: int = 1,
    ranks: Ranks = ALONE,
) -> Model:
    """The untrained model of a run; weights depend on its seed alone.

    `total_steps` sets the pace of the auxiliary loss. Raises ConfigError, DataError or KernelError.
    """
    torch.manual_seed(mix(config.seed, 1))
    encoder = build_encoder(config.encoder, config.inputs.model, inputs.tokens, device)
    prior = config.layer.bias_init == "log_prior"
    return assemble(
        config,
        encoder,
        inputs.order,
        frequencies=inputs.label_frequencies if prior else None,
        n_documents=inputs.corpus.info.documents["train"],
        clusters=inputs.clusters,
        auxiliary_scale=partial(auxiliary_scale, total_steps=total_steps, config=config.auxiliary),
        ranks=ranks,
    )


def restore_model(
    config: RunConfig,
    folder: Path,
    order: LabelOrder,
    tensors: dict[str, Tensor],
    device: torch.device,
    path: Path,
) -> Model:
    """The trained model with the tensors of the file `path`, for prediction alone: without momenta, and
    where `device` is a CPU of these tensors themselves.

    `folder`: of the encoder's configuration. Raises DataError when tensors and configuration do not fit.
    """
    parts: dict[str, Any] = {}
    clusters = tensors.get("layer.clusters")
    if clusters is not None:
        of_label = np.empty(order.n_labels, np.int32)
        of_label[order.labels] = clusters.numpy()
        parts = {
            "clusters": of_label,
            "auxiliary_scale": partial(auxiliary_scale, total_steps=1, config=config.auxiliary),
        }
    weights = {
        name.removeprefix("encoder."): value
        for name, value in tensors.items()
        if name.startswith("encoder.")
    }
    with reading(path, "the weights of this configuration"):
        encoder = restore_encoder(config.encoder, folder, weights, device)
    config = replace(
        config,
        layer=replace(config.layer, bias_init="zero"),
        training=replace(config.training, momentum=0.0, optimizer="sgd", backend="auto"),
    )
    model = assemble(config, encoder, order, device=device, drawn=False, **parts)
    targets = model.tensors(momenta=False)
    check_fit(targets, tensors, path)
    for part, module in model.parts().items():
        state = {
            name.removeprefix(f"{part}."): tensors[name].to(device, target.dtype)
            for name, target in targets.items()
            if name.startswith(f"{part}.")
        }
        module.load_state_dict(state, assign=True)
    return model


def assemble(
    config: RunConfig,
    encoder: Encoder,
    order: LabelOrder,
    *,
    ranks: Ranks = ALONE,
    device: torch.device | None = None,
    **settings: Any,
) -> Model:
    """An untrained model around `encoder`, in its precision, on `device`, by default the encoder's.

    `settings`: those of `haste.layers.build.build_layer`.
    """
    device = device or encoder.device
    projection = build_projection(config, encoder.feature_size)
    projection = projection.to(device, encoder.dtype)
    size = getattr(projection, "out_features", encoder.feature_size)
    layer = build_layer(config, size, order, device, ranks=ranks, **settings)
    return Model(encoder, projection, layer, order, ranks)


def copy_into(targets: dict[str, Tensor], values: dict[str, Tensor], path: Path) -> None:
    """Copy the tensors of `path` by name, in place; raises DataError as `check_fit` does, before that."""
    check_fit(targets, values, path)
    for name, target in targets.items():
        target.copy_(values[name])


def check_fit(targets: dict[str, Tensor], values: dict[str, Tensor], path: Path) -> None:
    """Refuse (DataError) tensors of `path` that have other names or shapes than `targets`."""
    if set(targets) != set(values):
        odd = sorted(set(targets) ^ set(values))[:3]
        raise DataError(
            f"{path}: its tensors are not those of this configuration, e.g. {', '.join(odd)}."
        )
    for name, target in targets.items():
        if target.shape != values[name].shape:
            raise DataError(
                f"{path}: {name} is {list(values[name].shape)}, the configuration wants "
                f"{list(target.shape)}."
            )
