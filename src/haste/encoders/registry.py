"""From a run's configuration to its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from haste.config import EncoderConfig
from haste.data.tokens import Tokens
from haste.encoders.as_given import AsGiven
from haste.encoders.bag import BagEncoder
from haste.encoders.base import Encoder
from haste.encoders.transformer import empty_transformer, load_transformer, transformer_encoder
from haste.errors import ConfigError, DataError
from haste.pretrained import check_fetched, check_length, hidden_size

FEATURE_EMBEDDING_SCALE = 0.05
"""standard deviation of the embedding of a sparse feature, about that of pretrained word embeddings"""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_encoder(
    config: EncoderConfig, model: Path | str, tokens: Tokens, device: torch.device | str = "cpu"
) -> Encoder:
    """The untrained encoder of a run.

    `model` is a folder with config.json, tokenizer.json and model.safetensors. Sparse features get random
    embeddings, from torch's generator, of the size of the model's. Raises ConfigError or DataError.
    """
    if config.kind == "none":
        return _as_given(tokens).to(device)
    check_fetched(Path(model))
    check_length(config.kind, Path(model), tokens.info.max_len)
    if config.kind == "transformer":
        transformer = load_transformer(model, DTYPES[config.dtype], device)
        largest = max(int(ids.values.max(initial=-1)) for ids in tokens.splits.values())
        words = cast(nn.Embedding, transformer.get_input_embeddings())
        _check_ids(largest, words.num_embeddings, model)
        return transformer_encoder(transformer, config)
    vocabulary = np.array(tokens.vocabulary)
    if len(vocabulary) == 0:
        what = "feature" if tokens.info.weighted else "token but special ones"
        raise DataError(f"the training documents have no {what}; check the corpus.")
    if tokens.info.weighted:
        size = feature_size(config, model, tokens)
        embeddings = FEATURE_EMBEDDING_SCALE * torch.randn(len(vocabulary), size)
    else:
        pretrained = word_embeddings(Path(model))
        _check_ids(int(vocabulary[-1]), len(pretrained), model)
        embeddings = torch.from_numpy(pretrained[vocabulary])
    bag = _bag(config, embeddings, torch.from_numpy(vocabulary), tokens.info.vocab_size)
    return bag.to(device)


def restore_encoder(
    config: EncoderConfig, model: Path, weights: Mapping[str, Tensor], device: torch.device
) -> Encoder:
    """An encoder of the shapes of trained `weights`, which are still to take the places of its own; what is
    not among these is on `device`.

    Of `model`, a folder, the configuration of a transformer is read and nothing else.
    """
    if config.kind == "none":
        return AsGiven(int(weights["size"])).to(device)
    if config.kind == "transformer":
        transformer = empty_transformer(model, DTYPES[config.dtype], device)
        return transformer_encoder(transformer, config)
    lookup = weights["lookup"]
    vocabulary = (lookup >= 0).nonzero().flatten()
    # of its size and nothing else: millions of features have large embeddings
    return _bag(config, weights["embedding.weight"].to("meta"), vocabulary, len(lookup))


def _bag(config: EncoderConfig, embeddings: Tensor, vocabulary: Tensor, size: int) -> BagEncoder:
    return BagEncoder(
        embeddings,
        vocabulary,
        size,
        residual=config.residual,
        token_dropout=config.token_dropout,
    )


def feature_size(config: EncoderConfig, model: Path | str, tokens: Tokens) -> int:
    """H of a run's encoder, before it is built. Raises DataError where the model does not say."""
    if config.kind == "none":
        return tokens.info.vocab_size
    size = hidden_size(Path(model), config.kind)
    if size is None:
        raise DataError(
            f"{model}/config.json: does not say how many features the model has (hidden_size); add it, or choose "
            "another model."
        )
    return size


def _as_given(tokens: Tokens) -> AsGiven:
    if not tokens.info.weighted:
        raise ConfigError(
            "encoder.kind: none takes features as they are, and this data set has texts; choose bag or "
            "transformer."
        )
    documents = tokens.splits["train"]
    values = torch.from_numpy(np.array(documents.weights))
    return AsGiven(tokens.info.vocab_size, values, len(documents))


def _check_ids(largest: int, size: int, model: Path | str) -> None:
    if largest >= size:
        raise DataError(
            f"{model}: has embeddings of {size} tokens, but the documents have the token {largest}: they "
            "were cut by the tokenizer of another model. Run haste tokenize with this one."
        )


def word_embeddings(model: Path) -> np.ndarray:
    """fp32 [V, H]: the input embeddings of a pretrained model, read from model.safetensors."""
    path = model / "model.safetensors"
    if not path.is_file():
        raise DataError(f"{path}: no such file. Fetch the model: haste fetch")
    with safe_open(path, framework="pt") as weights:
        names = [n for n in weights.keys() if n.endswith("word_embeddings.weight")]  # noqa: SIM118
        if not names:
            raise DataError(f"{path}: has no word embeddings (…word_embeddings.weight).")
        return weights.get_tensor(names[0]).float().numpy()
