import numpy as np
import pytest
import torch

from haste.config import EncoderConfig
from haste.data.tokenize import load_tokens
from haste.encoders.features import encode, encode_split
from haste.encoders.registry import build_encoder, word_embeddings
from haste.errors import DataError
from haste.paths import CorpusDir, TokenDir


def test_bag_starts_from_the_pretrained_embeddings(tiny):
    tokens = load_tokens(tiny.tokens, tiny.corpus)
    encoder = build_encoder(EncoderConfig(), tiny.model, tokens)
    table = word_embeddings(tiny.model)
    assert torch.equal(encoder.embedding.weight, torch.from_numpy(table[tokens.vocabulary]))
    assert encoder.feature_size == 32


def test_features_come_back_in_the_documents_order(tiny):
    tokens = load_tokens(tiny.tokens, tiny.corpus)
    encoder = build_encoder(EncoderConfig(), tiny.model, tokens)
    split = tokens.splits["test"]
    by_batches = encode(encoder, split, batch_size=7)
    one_by_one = np.concatenate(
        [encode(encoder, split.take(np.array([i]))) for i in range(len(split))]
    )
    assert np.allclose(by_batches, one_by_one, atol=1e-6)
    again = encode_split("bag", tiny.model, TokenDir(tiny.tokens), CorpusDir(tiny.corpus), "test")
    assert np.array_equal(again, encode(encoder, split))


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"model.safetensors: no such file. Fetch the model"):
        word_embeddings(tmp_path)
