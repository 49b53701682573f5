"""Token ids of a corpus for one tokenizer and length: ragged, on disk, read through memory maps.

The sparse features of a corpus without text take the same form: their columns stand for tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from haste.checksums import Sum, check_file, file_sums, read_description, write_description
from haste.data.corpus import Corpus, Count, Positive
from haste.data.ragged import Ragged, RaggedWriter, offsets_of
from haste.errors import ConfigError, DataError
from haste.files import atomic, read_json, reading, sha256
from haste.paths import SPLITS, CorpusDir, TokenDir
from haste.settings import settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MADE_BY = "haste tokenize"
TOKENIZER_FILE = "tokenizer.json"
BLOCK = 4096
"""documents handed to the tokenizer at once"""


@settings("tokens")
class TokenInfo:
    """tokens.json."""

    tokenizer: str
    """name of the model the tokenizer belongs to"""
    max_len: Positive
    """tokens kept of a document, special tokens included; sparse features are not cut"""
    vocab_size: Positive
    """ids are below this"""
    pad_id: int
    special_ids: list[int]
    """all special tokens, sorted, padding among them"""
    tokenizer_sha256: str
    corpus_sha256: Mapping[str, str]
    """of the file that each split comes from"""
    n_tokens: Mapping[str, Count]
    """by split, special tokens included"""
    weighted: bool = False
    """ids are columns of sparse features, and each has a weight"""
    corpus_seen: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """size and time of change (ns) of those files when they were hashed: while both stay, they are
    taken for the same"""
    digests: Mapping[str, Sum] = field(default_factory=dict)
    """of all other files, by name; none in tokens of before they were written down"""


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

    Documents are cut to `max_len` tokens, special ones included, and not padded.
    The sparse features of a corpus without text are kept whole, and `model` is not opened. Memory
    does not grow with the corpus (but sparse features are read whole). tokens.json comes last.
    Raises DataError for a missing or unusable tokenizer, ConfigError for a `max_len` too small to
    hold a token of text. `tick` is called with the number of documents done.
    """
    directory = TokenDir(Path(out))
    # before they are read: a change meanwhile must not pass for what was read
    stamps = {split: _stamp(_source(corpus, split)) for split in SPLITS}
    digests = {split: _digest(_source(corpus, split)) for split in SPLITS}
    if corpus.info.has_text:
        described = _tokenize_texts(corpus, Path(model), max_len, directory, tick)
    else:
        described = _take_features(corpus, directory, tick)
    info = TokenInfo(max_len=max_len, corpus_sha256=digests, corpus_seen=stamps, **described)
    info = dataclasses.replace(info, digests=file_sums(_files(directory, info), directory.root))
    write_description(directory.info, dataclasses.asdict(info))
    return info


def load_tokens(directory: Path | str | TokenDir, corpus: Path | str | CorpusDir) -> Tokens:
    """Open a token folder made from `corpus`.

    Raises DataError when a file is missing or not what was written, when its values cannot be (ids out
    of range, offsets that do not rise, a vocabulary that is not sorted), and when the corpus' texts are
    no longer those that were tokenised.
    """
    directory, corpus = TokenDir.of(directory), CorpusDir.of(corpus)
    value = read_description(directory.info, MADE_BY)
    with reading(directory.info, "the description of tokens", MADE_BY):
        info = TokenInfo(**value)
        # earlier versions have the labels' texts too, which nothing reads
        if not set(SPLITS) <= info.n_tokens.keys() & info.corpus_sha256.keys():
            raise ValueError("n_tokens and corpus_sha256 are not those of all splits")
    if not all(_is_fresh(info, split, corpus) for split in SPLITS):
        what = "features" if info.weighted else "texts"
        raise DataError(
            f"{directory.root}: stale: the {what} in {corpus.root} have changed since. Run: haste tokenize "
            f"--corpus {corpus.root} --model <folder of {info.tokenizer or 'any model'}> --max-len {info.max_len} "
            f"--out {directory.root}"
        )
    for path in _files(directory, info):
        check_file(path, info.digests, MADE_BY)
    vocabulary = _load(directory.vocabulary, np.int32)
    with reading(directory.vocabulary, "a vocabulary", MADE_BY):
        _check_range(vocabulary, info.vocab_size)
        if (vocabulary[1:] <= vocabulary[:-1]).any():
            raise ValueError("its ids do not rise")
    splits = {split: _load_split(directory, split, info) for split in SPLITS}
    return Tokens(info=info, splits=splits, vocabulary=vocabulary)


def _files(directory: TokenDir, info: TokenInfo) -> list[Path]:
    """All files but the description."""
    kinds = [directory.ids, directory.offsets, *([directory.weights] if info.weighted else [])]
    return [directory.vocabulary, *(kind(split) for split in SPLITS for kind in kinds)]


def _tokenize_texts(
    corpus: Corpus,
    model: Path,
    max_len: int,
    directory: TokenDir,
    tick: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Write the tokens of all documents; returns what TokenInfo is to say of them."""
    tokenizer, pad_id = _load_tokenizer(model, max_len)
    directory.info.unlink(missing_ok=True)
    vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
    n_tokens, done = {}, 0
    used = np.zeros(vocab_size, bool)
    for split in SPLITS:
        with RaggedWriter.saved(directory.ids(split), np.int32) as writer:
            for texts in corpus.text_blocks(split, BLOCK):
                block = encode(tokenizer, texts)
                writer.append(block.values, block.lengths())
                if split == "train":
                    used[block.values] = True
                done += len(texts)
                if tick:
                    tick(done)
        offsets = writer.offsets()
        _save(directory.offsets(split), offsets)
        n_tokens[split] = int(offsets[-1])
    special = sorted(
        {pad_id, *(i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special)}
    )
    used[special] = False
    _save(directory.vocabulary, np.flatnonzero(used).astype(np.int32))
    return {
        "tokenizer": model.name,
        "vocab_size": vocab_size,
        "pad_id": pad_id,
        "special_ids": special,
        "tokenizer_sha256": sha256(model / TOKENIZER_FILE),
        "n_tokens": n_tokens,
    }


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Ragged:
    """int32 ids of texts, cut as the tokenizer is set to cut."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
    offsets = offsets_of([len(row) for row in ids])
    values = np.fromiter(itertools.chain.from_iterable(ids), np.int32, offsets[-1])
    return Ragged(values, offsets)


def _take_features(
    corpus: Corpus, directory: TokenDir, tick: Callable[[int], None] | None
) -> dict[str, Any]:
    """Write the sparse features of all splits as tokens; returns what TokenInfo is to say of them."""
    directory.info.unlink(missing_ok=True)
    n_tokens, done = {}, 0
    for split in SPLITS:
        features = corpus.features(split)
        _save(directory.ids(split), features.indices.astype(np.int32, copy=False))
        _save(directory.weights(split), features.data.astype(np.float32, copy=False))
        _save(directory.offsets(split), features.indptr.astype(np.int64))
        if split == "train":
            _save(directory.vocabulary, np.unique(features.indices).astype(np.int32))
        n_tokens[split] = int(features.nnz)
        done += features.shape[0]
        if tick:
            tick(done)
    return {
        "tokenizer": "",
        "vocab_size": corpus.info.n_features,
        "pad_id": 0,
        "special_ids": [],
        "tokenizer_sha256": "",
        "n_tokens": n_tokens,
        "weighted": True,
    }


def _source(corpus: Corpus, split: str) -> Path:
    """What the tokens of a split are made from."""
    kind = corpus.directory.documents if corpus.info.has_text else corpus.directory.features
    return kind(split)


def _is_fresh(info: TokenInfo, split: str, corpus: CorpusDir) -> bool:
    """Whether a split's source is what it was, without reading it where its time of change is the same."""
    path = corpus.features(split) if info.weighted else corpus.documents(split)
    seen = list(info.corpus_seen.get(split, ()))
    return seen == _stamp(path) or info.corpus_sha256[split] == _digest(path)


def _stamp(path: Path) -> list[int]:
    with reading(path, "a file"):
        status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _digest(path: Path) -> str:
    with reading(path, "a file"):
        return sha256(path)


def _load_split(directory: TokenDir, split: str, info: TokenInfo) -> Ragged:
    ids, offsets = _load(directory.ids(split), np.int32), _load(directory.offsets(split), np.int64)
    weights = _load(directory.weights(split), np.float32) if info.weighted else None
    for array in (ids, weights):
        if array is not None and len(array) != info.n_tokens[split]:
            raise DataError(
                f"{array.filename}: has {len(array)} tokens; {directory.info} says "
                f"{info.n_tokens[split]}. Make the tokens again: {MADE_BY}."
            )
    with reading(directory.ids(split), "ids of tokens", MADE_BY):
        _check_range(ids, info.vocab_size)
    with reading(directory.offsets(split), "offsets of documents", MADE_BY):
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(ids):
            raise ValueError(f"they are not from 0 to {len(ids)}")
        if (offsets[1:] < offsets[:-1]).any():
            raise ValueError("they do not rise")
    return Ragged(ids, offsets, weights)


def _check_range(ids: np.ndarray, size: int) -> None:
    if len(ids) and not (ids.min() >= 0 and ids.max() < size):
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"it has the id {wrong}, which is not from 0 to {size - 1}")


def _load_tokenizer(model: Path, max_len: int) -> tuple[Tokenizer, int]:
    """The tokenizer, set to cut and not to pad, and the id of its padding token."""
    from tokenizers import Tokenizer

    path = model / TOKENIZER_FILE
    with reading(path, "a tokenizer", "haste fetch"):
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


def _save(path: Path, array: np.ndarray) -> None:
    with atomic(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def _load(path: Path, dtype: type) -> np.memmap:
    with reading(path, f"an .npy file of {dtype.__name__} [n]", MADE_BY):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != dtype or array.ndim != 1:
            raise ValueError(f"{array.dtype} {list(array.shape)}")
        return array
