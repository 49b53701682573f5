import torch

from haste.encoders.bag import FEATURE_SCALE, BagEncoder

EMBEDDINGS = torch.tensor([[1.0, 0.0, 2.0, 5.0], [3.0, 2.0, 0.0, 1.0], [0.0, 1.0, 0.0, -4.0]])
VOCABULARY = torch.tensor([4, 6, 9])  # 0..3, 5, 7, 8 are special or never trained on


def encode(*documents, weights=None):
    encoder = BagEncoder(EMBEDDINGS, VOCABULARY, 12)
    ids = torch.tensor([i for d in documents for i in d], dtype=torch.int32)
    offsets = torch.tensor([0, *torch.tensor([len(d) for d in documents]).cumsum(0).tolist()])
    return encoder, encoder(ids, offsets, None if weights is None else torch.tensor(weights))


def normalised(row):
    row = torch.tensor(row)
    return FEATURE_SCALE * (row - row.mean()) / (row.var(unbiased=False) + 1e-5).sqrt()


def test_untrained_features_are_the_normalised_mean_embedding():
    _, features = encode([2, 4, 6, 3], [9, 9, 4])
    assert torch.allclose(features[0], normalised([2.0, 1.0, 1.0, 3.0]), atol=1e-6)
    assert torch.allclose(features[1], normalised([1 / 3, 2 / 3, 2 / 3, -1.0]), atol=1e-5)


def test_unknown_and_special_tokens_do_not_count():
    _, features = encode([4, 6], [2, 4, 5, 11, 6, 3])
    assert torch.allclose(features[0], features[1])


def test_a_document_without_known_tokens_is_the_norms_bias():
    encoder, features = encode([2, 5, 3], [4], [])
    assert torch.equal(features[0], torch.zeros(4))
    assert torch.equal(features[2], encoder.final_norm.bias)


def test_the_embeddings_gradient_is_sparse_and_the_pretrained_table_is_left_alone():
    encoder, features = encode([4, 4])
    (features * torch.tensor([1.0, 2.0, 0.0, 0.0])).sum().backward()
    gradient = encoder.embedding.weight.grad
    assert gradient.is_sparse
    assert gradient.coalesce().indices().tolist() == [[0]]
    with torch.no_grad():
        encoder.embedding.weight.zero_()
    assert EMBEDDINGS[0, 0] == 1.0


def test_weighted_mean_by_hand():
    # (3 e4 - e9) / 4, of a document that also has an unknown feature; 0.5 e6 / 0.5
    _, features = encode([4, 2, 9], [6], weights=[3.0, 100.0, -1.0, 0.5])
    assert torch.allclose(features[0], normalised([0.75, -0.25, 1.5, 4.75]), atol=1e-6)
    assert torch.allclose(features[1], normalised([3.0, 2.0, 0.0, 1.0]), atol=1e-6)


def test_equal_weights_count_like_text():
    documents = [[2, 4, 6, 3], [9, 9, 4], [], [5]]
    _, text = encode(*documents)
    _, weighted = encode(*documents, weights=[0.3] * 8)
    assert torch.allclose(text, weighted, atol=1e-6)


def test_weights_of_zero_leave_an_empty_document():
    encoder, features = encode([4, 6], weights=[0.0, 0.0])
    assert torch.equal(features[0], encoder.final_norm.bias)


def test_gradient_of_weighted_embeddings_is_sparse_and_shared_by_weight():
    encoder, features = encode([4, 6, 6], weights=[1.0, 2.0, 1.0])
    (features * torch.tensor([1.0, 2.0, 0.0, 0.0])).sum().backward()
    gradient = encoder.embedding.weight.grad
    assert gradient.is_sparse
    first, second, third = gradient.to_dense()
    assert torch.allclose(second, 3 * first, atol=1e-7)
    assert first.abs().sum() > 0
    assert torch.equal(third, torch.zeros(4))


def test_without_the_block_untrained_features_are_the_same():
    _, features = encode([4, 6], [9])
    plain = BagEncoder(EMBEDDINGS, VOCABULARY, 12, residual=False)
    ids, offsets = torch.tensor([4, 6, 9], dtype=torch.int32), torch.tensor([0, 2, 3])
    assert torch.equal(plain(ids, offsets), features)
    assert not any(name.startswith(("inner", "outer")) for name in plain.state_dict())


def test_token_dropout_leaves_out_its_share_in_training_alone():
    documents = 4000
    encoder = BagEncoder(EMBEDDINGS, VOCABULARY, 12, token_dropout=0.25)
    ids = torch.tensor([4, 6], dtype=torch.int32).repeat(documents)
    offsets = torch.arange(0, 2 * documents + 1, 2)
    whole = normalised([2.0, 1.0, 1.0, 3.0])
    assert torch.allclose(encoder.eval()(ids, offsets), whole, atol=1e-6)
    torch.manual_seed(0)
    for weights in (None, torch.ones(2 * documents)):
        features = encoder.train()(ids, offsets, weights)
        kept = torch.isclose(features, whole, atol=1e-5).all(1).float().mean()
        assert abs(kept - 0.75**2) < 0.03
        assert abs((features == 0).all(1).float().mean() - 0.25**2) < 0.02
