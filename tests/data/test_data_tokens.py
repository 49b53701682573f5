import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from typer.testing import CliRunner

from haste.cli import app
from haste.data.corpus import load_corpus
from haste.data.tokens import load_tokens, tokenize
from haste.errors import ConfigError, DataError
from small_corpus import write_small_corpus

WORDS = ["[UNK]", "[FILL]", "<s>", "</s>", "red", "green", "blue", "black"]
TEXTS = {"train": ["red blue", "", "red red black pink"], "validation": ["green"], "test": ["blue"]}


def write_tokenizer(folder, padding=True):
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    if padding:
        # as published files have them: neither must reach the tokens
        tokenizer.enable_padding(pad_id=1, pad_token="[FILL]", length=9)
        tokenizer.enable_truncation(3)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_documents(folder, texts):
    positives = {split: np.ones((len(rows), 2)) for split, rows in texts.items()}
    return write_small_corpus(folder, positives, texts=texts, max_len=4)


@pytest.fixture
def corpus(tmp_path):
    return write_documents(tmp_path / "corpus", TEXTS)


@pytest.fixture
def model(tmp_path):
    return write_tokenizer(tmp_path / "colours")


@pytest.fixture
def tokens(corpus, model, tmp_path):
    """The folder of the corpus' tokens."""
    tokenize(corpus, model, 5, tmp_path / "tokens")
    return tmp_path / "tokens"


FEATURES = {
    "train": [[0.5, 0, 2, 0], [0, 0, 0, 0], [0, 0, 1, -1]],
    "validation": [[0, 7, 0, 0]],
    "test": [[1, 0, 0, 0]],
}


def write_features(folder, features=FEATURES):
    matrices = {s: sp.csr_matrix(np.array(rows, np.float32)) for s, rows in features.items()}
    positives = {split: np.ones((m.shape[0], 2)) for split, m in matrices.items()}
    texts = {split: [None] * m.shape[0] for split, m in matrices.items()}
    return write_small_corpus(folder, positives, texts=texts, features=matrices, max_len=4)


@pytest.fixture
def weighted(tmp_path):
    """A corpus of sparse features and the folder of its tokens."""
    corpus = write_features(tmp_path / "sparse")
    tokenize(corpus, tmp_path / "no model", 2, tmp_path / "weighted")
    return corpus, tmp_path / "weighted"


def test_tokens_by_hand(corpus, model, tmp_path):
    ticks = []
    info = tokenize(corpus, model, 5, tmp_path / "tokens", ticks.append)
    tokens = load_tokens(tmp_path / "tokens", tmp_path / "corpus")
    assert tokens.info == info
    train = tokens.splits["train"]
    # <s> and </s> around, cut to five with both kept, pink unknown (cut away), nothing padded
    assert [train[i].tolist() for i in range(3)] == [[2, 4, 6, 3], [2, 3], [2, 4, 4, 7, 3]]
    assert tokens.splits["validation"][0].tolist() == [2, 5, 3]
    assert (train.values.dtype, train.offsets.dtype) == (np.int32, np.int64)
    assert isinstance(train.values, np.memmap)
    # green and blue of the other splits do not count, nor do special tokens
    assert tokens.vocabulary.tolist() == [4, 6, 7]
    assert (info.pad_id, info.special_ids, info.vocab_size) == (1, [0, 1, 2, 3], 8)
    assert (info.tokenizer, info.max_len) == ("colours", 5)
    assert info.n_tokens == {"train": 11, "validation": 3, "test": 3}
    assert ticks == [3, 4, 5]


def test_sparse_features_become_weighted_tokens(weighted):
    corpus, folder = weighted
    tokens = load_tokens(folder, corpus.directory)
    train = tokens.splits["train"]
    # whole, though longer than max_len is given; a document of none is empty
    assert train.values.tolist() == [0, 2, 2, 3]
    assert train.weights.tolist() == [0.5, 2, 1, -1]
    assert train.offsets.tolist() == [0, 2, 2, 4]
    assert (train.values.dtype, train.weights.dtype) == (np.int32, np.float32)
    assert isinstance(train.weights, np.memmap)
    assert tokens.vocabulary.tolist() == [0, 2, 3]
    assert (tokens.info.weighted, tokens.info.vocab_size) == (True, 4)
    assert tokens.info.special_ids == []


def test_blocks_join_without_a_seam(corpus, model, tokens, tmp_path, monkeypatch):
    monkeypatch.setattr("haste.data.tokens.BLOCK", 2)
    tokenize(corpus, model, 5, tmp_path / "two")
    for name in ("train.ids.npy", "train.offsets.npy", "vocabulary.npy", "tokens.json"):
        assert (tokens / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_changed_texts_make_tokens_stale(corpus, tokens):
    write_documents(corpus.directory.root, {**TEXTS, "test": ["green"]})
    with pytest.raises(DataError, match=r"stale: the texts .* Run: haste tokenize --corpus"):
        load_tokens(tokens, corpus.directory)


def test_changed_features_make_tokens_stale(weighted):
    corpus, folder = weighted
    write_features(corpus.directory.root, {**FEATURES, "test": [[0, 1, 0, 0]]})
    with pytest.raises(DataError, match=r"stale: the features in .* have changed since"):
        load_tokens(folder, corpus.directory)


def test_a_change_while_tokenising_is_seen(corpus, model, tmp_path):
    """The first block was read, so the tokens are those of the old text."""

    def change(done):
        if done == 3:
            write_documents(tmp_path / "corpus", {**TEXTS, "train": ["red red", "", "black"]})

    tokenize(corpus, model, 5, tmp_path / "tokens", change)
    with pytest.raises(DataError, match="stale: the texts"):
        load_tokens(tmp_path / "tokens", corpus.directory)


def test_a_corpus_of_other_length_than_it_says_is_refused(corpus, model, tmp_path, describe_anew):
    path = corpus.directory.documents("train")
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(DataError, match=r"train\.parquet: is not what was written"):
        tokenize(corpus, model, 5, tmp_path / "tokens")
    describe_anew(corpus.directory.info)
    corpus = load_corpus(corpus.directory)
    with pytest.raises(DataError, match=r"train\.parquet: has 2 rows, .*corpus\.json says 3"):
        tokenize(corpus, model, 5, tmp_path / "tokens")


def test_every_file_of_tokens_is_held_to_its_digest(weighted):
    corpus, folder = weighted
    for path in folder.iterdir():
        content = path.read_bytes()
        for at in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            with pytest.raises(DataError, match=rf"{path}: .*haste tokenize"):
                load_tokens(folder, corpus.directory)
        path.write_bytes(content)
    load_tokens(folder, corpus.directory)


def changed(path, values):
    array = np.load(path)
    array[list(values)] = list(values.values())
    np.save(path, array)


@pytest.mark.parametrize(
    ("name", "damage", "text"),
    [
        ("train.ids", lambda path: np.save(path, np.load(path)[:-1]), "has 10 tokens"),
        ("train.ids", lambda path: path.write_bytes(path.read_bytes()[:-4]), "not an .npy file"),
        ("train.ids", lambda path: path.unlink(), "no such file"),
        ("train.ids", lambda path: np.save(path, np.array([{}])), "not an .npy file"),
        *(
            (name, lambda path, values=values: changed(path, values), text)
            for name, values, text in (
                ("train.ids", {3: -1}, "the id -1, which is not from 0 to 7"),
                ("test.ids", {0: 8}, "the id 8, which"),
                ("test.ids", {0: 2**30}, "the id 1073741824, which"),
                ("vocabulary", {0: 6, 1: 4}, "its ids do not rise"),
                ("vocabulary", {0: 6}, "its ids do not rise"),
                ("vocabulary", {2: 2**30}, "the id 1073741824, which"),
                ("vocabulary", {0: -1}, "the id -1, which"),
                ("train.offsets", {0: 1}, "not from 0 to 11"),
                ("train.offsets", {1: 7}, "they do not rise"),
                ("train.offsets", {3: 10}, "not from 0 to 11"),
            )
        ),
    ],
)
def test_damaged_tokens_are_refused_without_digests_too(
    corpus, tokens, describe_anew, name, damage, text
):
    describe_anew(tokens / "tokens.json")
    path = tokens / f"{name}.npy"
    damage(path)
    with pytest.raises(DataError, match=rf"{path}: .*{text}.*haste tokenize"):
        load_tokens(tokens, corpus.directory)


def test_tokenising_that_is_cut_short_is_seen(corpus, model, tokens):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, model, 4, tokens, stop)
    with pytest.raises(DataError, match=r"tokens\.json: no such file"):
        load_tokens(tokens, corpus.directory)


def test_padding_from_the_tokenizers_settings(corpus, tmp_path):
    model = write_tokenizer(tmp_path / "plain", padding=False)
    with pytest.raises(DataError, match="names no padding token"):
        tokenize(corpus, model, 5, tmp_path / "tokens")
    for value in ("[FILL]", {"content": "[FILL]"}):
        (model / "tokenizer_config.json").write_text(json.dumps({"pad_token": value}))
        assert tokenize(corpus, model, 5, tmp_path / "tokens").pad_id == 1


def test_too_short_a_length_is_refused(corpus, model, tmp_path):
    with pytest.raises(
        ConfigError, match="2 leaves no room for text: colours adds 2 special tokens"
    ):
        tokenize(corpus, model, 2, tmp_path / "tokens")


@pytest.mark.parametrize(("options", "max_len"), [([], 4), (["--max-len", "5"], 5)])
def test_the_command(corpus, model, tmp_path, options, max_len):
    command = ["tokenize", "--corpus", corpus.directory.root, "--model", model, "--out"]
    result = CliRunner().invoke(app, [*map(str, [*command, tmp_path / "t"]), *options])
    assert result.exit_code == 0, result.output
    tokens = load_tokens(tmp_path / "t", corpus.directory)
    assert tokens.info.max_len == tokens.splits["train"].lengths().max() == max_len
