"""Pretrained encoders by name or folder: what is given is used, and held against its own configuration."""

from __future__ import annotations

import functools
from pathlib import Path

from haste.data.registry import Registry
from haste.errors import ConfigError, suggest
from haste.files import read_json, reading
from haste.grid import GridConfig
from haste.presets import method

FILES = ("config.json", "tokenizer.json", "model.safetensors")
COUNTED_FROM_PADDING = frozenset(
    (
        *("camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta"),
        *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    )
)
"""model types whose first position is that behind the padding token's id"""


def check_models(grid: GridConfig, registry: Registry) -> None:
    """Refuse (ConfigError) an encoder of the grid's runs that is neither a model of the registry nor a
    folder with one, or that cannot read documents as long as max_len, where the model is there."""
    trained = (key for key in grid.all_runs() if method(key.method).kind == "trained")
    runs = (grid.resolve(key) for key in trained)
    for encoder, model in dict.fromkeys((run.encoder, run.inputs.model) for run in runs):
        if encoder.kind == "none":
            # features as they are need no model
            continue
        if encoder.model_folder is not None:
            check_folder(encoder.model_folder)
        elif encoder.model not in registry.models and not Path(model).is_dir():
            raise ConfigError(
                f"encoder.model: there is no model {encoder.model!r}."
                f"{suggest(encoder.model, registry.models)} A folder of your own has a / in it: "
                f"./{encoder.model}"
            )
        check_length(encoder.kind, Path(model), encoder.max_len)


def check_folder(folder: Path) -> None:
    """Refuse (ConfigError) a folder without a pretrained encoder."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        what = f"has no {', '.join(missing)}" if folder.is_dir() else "is no folder"
        raise ConfigError(
            f"encoder.model: {folder} {what}; give a name of `models` in datasets.yaml, or a folder with "
            f"{', '.join(FILES)}. A model of the Hugging Face hub is downloaded into one first."
        )


def check_fetched(model: Path) -> None:
    """Refuse (DataError) a fetched model that is not what its record says; once a process, as long as its
    files do not change. A folder of the user's own has no record, and is taken as it is."""
    # with the import of what downloads, which a folder of the user's own does not need
    from haste.data.fetch import RECORD

    if (model / RECORD).is_file():
        stats = (path.stat() for path in sorted(model.iterdir()))
        _verify(model, tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in stats))


@functools.lru_cache
def _verify(model: Path, stats: tuple[tuple[int, ...], ...]) -> None:  # noqa: ARG001, they are the key
    from haste.data.fetch import verify

    verify(model)


def check_length(kind: str, model: Path, max_len: int) -> None:
    """Refuse (ConfigError) documents that are longer than a transformer reads; a bag reads any. A model
    that is not there yet passes."""
    limit = max_tokens(model) if kind == "transformer" else None
    if limit is not None and max_len > limit:
        raise ConfigError(
            f"encoder.max_len: {max_len}, but the transformer {model} reads at most {limit} tokens; give "
            "that or less, or take the bag."
        )


def max_tokens(model: Path) -> int | None:
    """Tokens of the longest document that a transformer reads, special ones included; None where it has
    no limit, or is not there."""
    path = model / "config.json"
    if not path.is_file():
        return None
    described = read_json(path)
    with reading(path, "the configuration of a pretrained encoder"):
        positions = described.get("max_position_embeddings")
        if positions is None or int(positions) < 1 or not described.get("position_biased_input", 1):
            return None
        if described.get("model_type") in COUNTED_FROM_PADDING:
            return int(positions) - int(described.get("pad_token_id", 1)) - 1
        return int(positions)


def hidden_size(model: Path, kind: str) -> int | None:
    """H of an encoder of `kind` from a fetched model: of a transformer that of its last layer, of a bag that of its
    word embeddings, which ALBERT and ELECTRA have smaller. None where config.json does not say."""
    path = model / "config.json"
    described = read_json(path, "haste fetch")
    with reading(path, "the configuration of a pretrained encoder"):
        # DistilBERT calls it dim, T5 d_model
        words = ("embedding_size",) if kind == "bag" else ()
        names = (*words, "hidden_size", "dim", "d_model")
        return next((int(described[name]) for name in names if name in described), None)
