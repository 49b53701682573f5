"""Token ids of a corpus for one tokenizer and length: ragged, on disk, read through memory maps.

The sparse features of a corpus without text take the same form: their columns stand for tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from haste.data.corpus import Corpus
from haste.data.ragged import Ragged, RaggedWriter
from haste.errors import ConfigError, DataError
from haste.files import atomic, read_json, reading, sha256, write_json
from haste.paths import SPLITS, CorpusDir, TokenDir

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
LABELS = "labels"
"""stands beside the splits: the texts of the trainable labels, where labels have text"""
BLOCK = 4096
"""documents handed to the tokenizer at once"""


@dataclass(frozen=True)
class TokenInfo:
    """tokens.json."""

    tokenizer: str
    """name of the model the tokenizer belongs to"""
    max_len: int
    """tokens kept of a document, special tokens included; sparse features are not cut"""
    vocab_size: int
    """ids are below this"""
    pad_id: int
    special_ids: list[int]
    """all special tokens, sorted, padding among them"""
    tokenizer_sha256: str
    corpus_sha256: Mapping[str, str]
    """of the file that each split comes from, and that of the labels where their texts are there"""
    n_tokens: Mapping[str, int]
    """by split and for the labels, special tokens included"""
    weighted: bool = False
    """ids are columns of sparse features, and each has a weight"""
    corpus_seen: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """size and time of change (ns) of those files when they were hashed: while both stay, they are
    taken for the same"""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a corpus: for each split a Ragged of int32 ids, memory-mapped."""

    info: TokenInfo
    splits: Mapping[str, Ragged]
    """besides the splits `labels`: the texts of labels 0..L-1, where they have text"""
    vocabulary: np.ndarray
    """int32, sorted: the ordinary tokens of the training documents"""

    def of_labels(self, purpose: str) -> Ragged:
        """The tokens of the labels' texts; raises DataError when there are none, naming the `purpose`."""
        if LABELS not in self.splits:
            raise DataError(
                f"{purpose}: these tokens have no label texts: the labels of the corpus have none, or "
                "got theirs since. Choose an option that needs training documents only, or run haste "
                "tokenize again."
            )
        return self.splits[LABELS]


def tokenize(
    corpus: Corpus,
    model: Path | str,
    max_len: int,
    out: Path | str,
    tick: Callable[[int], None] | None = None,
) -> TokenInfo:
    """Tokenise all splits with the tokenizer of the model folder `model` and write the folder `out`.

    Documents are cut to `max_len` tokens, special ones included, and not padded; so are label texts.
    The sparse features of a corpus without text are kept whole, and `model` is not opened. Memory
    does not grow with the corpus (but sparse features are read whole). tokens.json comes last.
    Raises DataError for a missing or unusable tokenizer, ConfigError for a `max_len` too small to
    hold a token of text. `tick` is called with the number of documents done.
    """
    directory = TokenDir(Path(out))
    sources = {name: _source(corpus.directory, name, corpus.info.has_text) for name in SPLITS}
    if corpus.info.has_text and _labels_have_text(corpus):
        sources[LABELS] = corpus.directory.labels
    # before they are read: a change meanwhile must not pass for what was read
    seen = {name: _seen(path) for name, path in sources.items()}
    digests = {name: _digest(path) for name, path in sources.items()}
    if corpus.info.has_text:
        described = _tokenize_texts(corpus, sources, Path(model), max_len, directory, tick)
    else:
        described = _take_features(corpus, directory, tick)
    info = TokenInfo(max_len=max_len, corpus_sha256=digests, corpus_seen=seen, **described)
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
    value = read_json(directory.info, "haste tokenize")
    with reading(directory.info, "the description of tokens", "haste tokenize"):
        info = TokenInfo(**value)
    if not all(_fresh(info, name, corpus) for name in info.corpus_sha256):
        what = "features" if info.weighted else "texts"
        raise DataError(
            f"{directory.root}: stale: the {what} in {corpus.root} have changed since. Run: haste tokenize "
            f"--corpus {corpus.root} --model <folder of {info.tokenizer or 'any model'}> --max-len {info.max_len} "
            f"--out {directory.root}"
        )
    return Tokens(
        info=info,
        splits={name: _load_split(directory, name, info) for name in info.n_tokens},
        vocabulary=_load(directory.vocabulary),
    )


def _tokenize_texts(
    corpus: Corpus,
    sources: Mapping[str, Path],
    model: Path,
    max_len: int,
    directory: TokenDir,
    tick: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Write the tokens of all sources; returns what TokenInfo is to say of them."""
    tokenizer, pad_id = _load_tokenizer(model, max_len)
    directory.info.unlink(missing_ok=True)
    vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
    n_labels = corpus.info.n_labels
    rows = {**corpus.info.documents, LABELS: n_labels + corpus.info.n_extra}
    wanted = {**corpus.info.documents, LABELS: n_labels}
    n_tokens, done = {}, 0
    used = np.zeros(vocab_size, bool)
    for name, path in sources.items():
        row = 0
        with RaggedWriter.saved(directory.ids(name), np.int32) as writer:
            for texts in _texts(path, rows[name], wanted[name]):
                encodings = tokenizer.encode_batch_fast(texts)
                lengths = [len(encoding) for encoding in encodings]
                ids = itertools.chain.from_iterable(encoding.ids for encoding in encodings)
                block = np.fromiter(ids, np.int32, sum(lengths))
                writer.append(block, lengths)
                if name == "train":
                    used[block] = True
                row += len(texts)
                if tick and name != LABELS:
                    tick(done + row)
        done += row
        offsets = writer.offsets()
        _save(directory.offsets(name), offsets)
        n_tokens[name] = int(offsets[-1])
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


def _texts(path: Path, rows: int, wanted: int) -> Iterator[list[str]]:
    """The first `wanted` texts of a Parquet file, in blocks; DataError when it has not just `rows`."""
    with reading(path, "a Parquet file with the column text"):
        # pages as they come: a file may have all its rows in one group
        stored = pq.ParquetFile(path, pre_buffer=False)
        found = stored.metadata.num_rows
        if found != rows:
            raise DataError(
                f"{path}: has {found} rows, corpus.json says {rows}. Make the corpus again."
            )
        for block in stored.iter_batches(BLOCK, columns=["text"]):
            texts = block.column(0).slice(0, wanted).to_pylist()
            if not texts:
                return
            wanted -= len(texts)
            # a label may lack the text that others have
            yield [text or "" for text in texts]


def _labels_have_text(corpus: Corpus) -> bool:
    if corpus.info.opaque_labels:
        return False
    path = corpus.directory.labels
    with reading(path, "a Parquet file with the column text"):
        blocks = pq.ParquetFile(path).iter_batches(columns=["text"])
        return any(block.column(0).null_count < len(block) for block in blocks)


def _source(corpus: CorpusDir, name: str, has_text: bool) -> Path:
    """What the tokens of a split, or of the labels, are made from."""
    if name == LABELS:
        return corpus.labels
    return corpus.documents(name) if has_text else corpus.features(name)


def _fresh(info: TokenInfo, name: str, corpus: CorpusDir) -> bool:
    """Whether a split's source is what it was, without reading it where its time of change is the same."""
    path = _source(corpus, name, has_text=not info.weighted)
    if list(info.corpus_seen.get(name, ())) == _seen(path):
        return True
    return info.corpus_sha256[name] == _digest(path)


def _seen(path: Path) -> list[int]:
    with reading(path, "a file"):
        found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _digest(path: Path) -> str:
    with reading(path, "a file"):
        return sha256(path)


def _load_split(directory: TokenDir, split: str, info: TokenInfo) -> Ragged:
    ids, offsets = _load(directory.ids(split)), _load(directory.offsets(split))
    weights = _load(directory.weights(split)) if info.weighted else None
    lengths = {len(ids), info.n_tokens[split], int(offsets[-1])}
    if len(lengths if weights is None else lengths | {len(weights)}) > 1:
        raise DataError(
            f"{directory.ids(split)}: has {len(ids)} tokens; {directory.info} says "
            f"{info.n_tokens[split]} and the offsets {offsets[-1]}. Make the tokens again."
        )
    return Ragged(ids, offsets, weights)


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


def _load(path: Path) -> np.ndarray:
    with reading(path, "an .npy file", "haste tokenize"):
        return np.load(path, mmap_mode="r", allow_pickle=False)
