"""Token ids of a corpus for one tokenizer and length: ragged, on disk, read through memory maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from haste.data.corpus import Corpus
from haste.data.ragged import Ragged
from haste.errors import ConfigError, DataError
from haste.files import atomic, read_json, reading, sha256, write_json
from haste.paths import SPLITS, CorpusDir, TokenDir

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
BLOCK = 4096
"""documents handed to the tokenizer at once"""


@dataclass(frozen=True)
class TokenInfo:
    """tokens.json."""

    tokenizer: str
    """name of the model the tokenizer belongs to"""
    max_len: int
    """tokens kept of a document, special tokens included"""
    vocab_size: int
    """ids are below this"""
    pad_id: int
    special_ids: list[int]
    """all special tokens, sorted, padding among them"""
    tokenizer_sha256: str
    corpus_sha256: Mapping[str, str]
    """of the parquet file of each split"""
    n_tokens: Mapping[str, int]
    """by split, special tokens included"""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a corpus: for each split a Ragged of int32 ids, memory-mapped."""

    info: TokenInfo
    splits: Mapping[str, Ragged]
    vocabulary: np.ndarray
    """int32, sorted: the ordinary tokens of the training documents"""


def tokenize(
    corpus: Corpus,
    model: Path | str,
    max_len: int,
    out: Path | str,
    tick: Callable[[int], None] | None = None,
) -> TokenInfo:
    """Tokenise all splits with the tokenizer of the model folder `model` and write the folder `out`.

    Documents are cut to `max_len` tokens, special ones included, and not padded. tokens.json comes
    last. Raises DataError for a missing or unusable tokenizer, ConfigError for a `max_len` too small
    to hold a token of text. `tick` is called with the number of documents done.
    """
    tokenizer, pad_id = _load_tokenizer(Path(model), max_len)
    directory = TokenDir(Path(out))
    directory.info.unlink(missing_ok=True)
    n_tokens, used = {}, np.zeros(0, dtype=np.int32)
    done = 0
    for split in SPLITS:
        rows: list[np.ndarray] = []
        for texts in _blocks(corpus.documents(split)["text"]):
            encodings = tokenizer.encode_batch_fast(texts)
            rows += (np.array(encoding.ids, dtype=np.int32) for encoding in encodings)
            if tick:
                tick(done + len(rows))
        done += len(rows)
        tokens = Ragged.of(rows)
        _save(directory.ids(split), tokens.values)
        _save(directory.offsets(split), tokens.offsets)
        n_tokens[split] = len(tokens.values)
        if split == "train":
            used = np.unique(tokens.values)
    special = sorted(
        {pad_id, *(i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special)}
    )
    _save(directory.vocabulary, np.setdiff1d(used, special).astype(np.int32))
    info = TokenInfo(
        tokenizer=Path(model).name,
        max_len=max_len,
        vocab_size=tokenizer.get_vocab_size(with_added_tokens=True),
        pad_id=pad_id,
        special_ids=special,
        tokenizer_sha256=sha256(Path(model) / TOKENIZER_FILE),
        corpus_sha256=_corpus_sha256(corpus.directory),
        n_tokens=n_tokens,
    )
    write_json(directory.info, dataclasses.asdict(info))
    return info


def load_tokens(directory: Path | str | TokenDir, corpus: Path | str | CorpusDir) -> Tokens:
    """Open a token folder made from `corpus`.

    Raises DataError when a file is missing, damaged or of another size, and when the corpus' texts
    are no longer those that were tokenised.
    """
    if not isinstance(directory, TokenDir):
        directory = TokenDir(Path(directory))
    if not isinstance(corpus, CorpusDir):
        corpus = CorpusDir(Path(corpus))
    value = read_json(directory.info)
    with reading(directory.info, "the description of tokens"):
        info = TokenInfo(**value)
    if info.corpus_sha256 != _corpus_sha256(corpus):
        raise DataError(
            f"{directory.root}: stale: the texts in {corpus.root} have changed since. Run: haste tokenize "
            f"--corpus {corpus.root} --model <folder of {info.tokenizer}> --max-len {info.max_len} "
            f"--out {directory.root}"
        )
    return Tokens(
        info=info,
        splits={split: _load_split(directory, split, info) for split in SPLITS},
        vocabulary=_load(directory.vocabulary),
    )


def _load_split(directory: TokenDir, split: str, info: TokenInfo) -> Ragged:
    ids, offsets = _load(directory.ids(split)), _load(directory.offsets(split))
    if len(ids) != info.n_tokens[split] or offsets[-1] != len(ids):
        raise DataError(
            f"{directory.ids(split)}: has {len(ids)} tokens; {directory.info} says "
            f"{info.n_tokens[split]} and the offsets {offsets[-1]}. Make the tokens again."
        )
    return Ragged(ids, offsets)


def _load_tokenizer(model: Path, max_len: int) -> tuple[Tokenizer, int]:
    """The tokenizer, set to cut and not to pad, and the id of its padding token."""
    from tokenizers import Tokenizer

    path = model / TOKENIZER_FILE
    with reading(path, "a tokenizer"):
        tokenizer = Tokenizer.from_file(str(path))
    pad_id = _pad_id(tokenizer, model)
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if max_len <= special:
        raise ConfigError(
            f"max_len: {max_len} leaves no room for text: {model.name} adds {special} special tokens. "
            f"Give at least {special + 1}."
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_len)
    return tokenizer, pad_id


def _pad_id(tokenizer: Tokenizer, model: Path) -> int:
    """From tokenizer.json where it says how to pad, else from tokenizer_config.json."""
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    config = model / "tokenizer_config.json"
    token: Any = read_json(config).get("pad_token") if config.is_file() else None
    if isinstance(token, dict):
        token = token.get("content")
    pad_id = tokenizer.token_to_id(token) if token else None
    if pad_id is None:
        raise DataError(
            f"{model}: its tokenizer names no padding token, neither in {TOKENIZER_FILE} nor in "
            "tokenizer_config.json (pad_token). Add one, or use another model."
        )
    return pad_id


def _blocks(texts: pa.ChunkedArray) -> Iterator[list[str]]:
    for start in range(0, len(texts), BLOCK):
        yield texts.slice(start, BLOCK).to_pylist()


def _corpus_sha256(corpus: CorpusDir) -> dict[str, str]:
    digests = {}
    for split in SPLITS:
        with reading(corpus.documents(split), "a file"):
            digests[split] = sha256(corpus.documents(split))
    return digests


def _save(path: Path, array: np.ndarray) -> None:
    with atomic(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def _load(path: Path) -> np.ndarray:
    with reading(path, "an .npy file"):
        return np.load(path, mmap_mode="r", allow_pickle=False)
