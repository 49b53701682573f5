"""What a run reads besides its corpus, made where there is none: a model, tokens, and orders of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from haste.config import RunConfig
from haste.data.corpus import Corpus, load_corpus
from haste.data.tokens import tokenize
from haste.encoders.features import encode_training_documents
from haste.encoders.words import write_word_model
from haste.errors import ConfigError
from haste.files import write_json
from haste.labels.embed import label_embeddings
from haste.labels.frequency import count_labels
from haste.labels.grouping import order_labels
from haste.labels.spec import OrderSpec
from haste.paths import TokenDir

BY_EMBEDDINGS = ("semantic", "balanced")
"""groupings that need label embeddings"""
FEATURE_DROPOUT = 0.3
"""of sparse features without a pretrained model"""
MAX_LEN = 256
"""words kept of a document where no pretrained model reads it"""


def own_encoder(
    section: Mapping[str, Any],
    texts: Sequence[str] | None,
    folder: Path,
    *,
    dense: bool,
    size: int,
    seed: int,
) -> dict[str, Any]:
    """The section `encoder:` with what suits the documents where it does not say it.

    Without a model, `folder` gets one, unless it has it: of the words of `texts`, the training documents, or where
    these have features (None) of nothing but the size H of their embeddings. `dense`: features go to the layer as
    they are.
    Raises ConfigError for a model that is no folder, DataError for texts without words.
    """
    encoder = dict(section)
    if dense:
        encoder.setdefault("kind", "none")
    if encoder.get("model") is not None:
        model = Path(encoder["model"]).expanduser().resolve()
        if not model.is_dir():
            raise ConfigError(
                f"encoder.model: there is no folder {model}; give that of a pretrained model. To fetch one: haste "
                "fetch all-MiniLM-L6-v2 --out all-MiniLM-L6-v2."
            )
        return {**encoder, "model": str(model)}
    encoder["model"] = str(folder)
    encoder.setdefault("residual", False)
    if texts is None:
        encoder.setdefault("token_dropout", FEATURE_DROPOUT)
    else:
        encoder.setdefault("max_len", MAX_LEN)
    if (folder / "config.json").is_file():
        return encoder
    if texts is None:
        write_json(folder / "config.json", {"hidden_size": size})
    else:
        write_word_model(texts, folder, size, seed)
    return encoder


def prepare(config: RunConfig) -> None:
    """Make the tokens and label orders of a run from its corpus; what is there already is not made again.

    Raises ConfigError or DataError for a corpus or model that will not do.
    """
    corpus = load_corpus(config.inputs.corpus)
    tokens = TokenDir(Path(config.inputs.tokens))
    if not tokens.info.is_file():
        tokenize(corpus, config.inputs.model, config.encoder.max_len, tokens.root)
    _write_orders(config, corpus, tokens)


def _write_orders(config: RunConfig, corpus: Corpus, tokens: TokenDir) -> None:
    inputs, n_labels = config.inputs, corpus.info.n_labels
    specs = {
        inputs.order: OrderSpec.of_layer(config.layer, config.encoder, config.seed),
        inputs.clusters: OrderSpec.of_clusters(config.auxiliary, config.encoder, config.seed),
    }
    positives = corpus.positives("train")[:, :n_labels]
    embeddings = None
    for path, spec in specs.items():
        if path is None or Path(path).is_file():
            continue
        if spec.grouping in BY_EMBEDDINGS and embeddings is None:
            embeddings = label_embeddings(
                encode_training_documents(
                    config.encoder.kind,
                    Path(inputs.model),
                    tokens,
                    corpus.directory,
                    pooling=config.encoder.pooling,
                ),
                positives,
            )
        order_labels(spec, embeddings, count_labels(positives)).save(path)
