from dataclasses import replace

import numpy as np
import pytest
import torch

from haste.config import EncoderConfig
from haste.data.tokens import load_tokens
from haste.encoders.features import encode, encode_training_documents
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
    split = tokens.splits["train"]
    by_batches = encode(encoder, split, batch_size=7)
    one_by_one = np.concatenate(
        [encode(encoder, split.take(np.array([i]))) for i in range(len(split))]
    )
    assert np.allclose(by_batches, one_by_one, atol=1e-6)
    again = encode_training_documents(
        "bag", tiny.model, TokenDir(tiny.tokens), CorpusDir(tiny.corpus)
    )
    assert np.array_equal(again, encode(encoder, split))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_features_of_a_gpu_are_those_of_the_cpu(tiny):
    where = "bag", tiny.model, TokenDir(tiny.tokens), CorpusDir(tiny.corpus)
    on_gpu = encode_training_documents(*where, device="cuda")
    assert np.allclose(on_gpu, encode_training_documents(*where), atol=1e-5)


def test_features_may_lie_in_a_file(tiny, tmp_path):
    where = TokenDir(tiny.tokens), CorpusDir(tiny.corpus)
    mapped = encode_training_documents("bag", tiny.model, *where, scratch=tmp_path)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, encode_training_documents("bag", tiny.model, *where))
    # it has no name, so that no end of a process leaves it behind
    assert list(tmp_path.iterdir()) == []


def test_sparse_features_have_embeddings_of_the_models_size_drawn_by_the_seed(tiny):
    tokens = load_tokens(tiny.tokens, tiny.corpus)
    weighted = replace(tokens, info=replace(tokens.info, weighted=True))
    tables = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        encoder = build_encoder(EncoderConfig(), tiny.model, weighted)
        tables.append(encoder.embedding.weight.detach())
    assert tables[0].shape == (len(tokens.vocabulary), 32)
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert 0.04 < tables[0].std() < 0.06


def test_an_encoder_that_is_only_asked_draws_the_same_and_leaves_the_generator_alone(
    tiny, monkeypatch
):
    tokens = load_tokens(tiny.tokens, tiny.corpus)
    weighted = replace(tokens, info=replace(tokens.info, weighted=True))
    monkeypatch.setattr("haste.encoders.features.load_tokens", lambda *_: weighted)
    where = "bag", tiny.model, TokenDir(tiny.tokens), CorpusDir(tiny.corpus)
    torch.manual_seed(5)
    first, drawn = encode_training_documents(*where), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert np.array_equal(first, encode_training_documents(*where))


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"model.safetensors: no such file. Fetch the model"):
        word_embeddings(tmp_path)


def test_tokens_of_another_model_are_refused(tiny):
    tokens = load_tokens(tiny.tokens, tiny.corpus)
    other = replace(tokens, vocabulary=np.append(tokens.vocabulary, np.int32(1000)))
    with pytest.raises(DataError, match=f"{tiny.model}: has embeddings of .* the token 1000"):
        build_encoder(EncoderConfig(), tiny.model, other)
