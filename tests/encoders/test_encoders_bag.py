import torch

from haste.encoders.bag import FEATURE_SCALE, BagEncoder

EMBEDDINGS = torch.tensor([[1.0, 0.0, 2.0, 5.0], [3.0, 2.0, 0.0, 1.0], [0.0, 1.0, 0.0, -4.0]])
VOCABULARY = torch.tensor([4, 6, 9])  # 0..3, 5, 7, 8 are special or never trained on


def encode(*documents):
    encoder = BagEncoder(EMBEDDINGS, VOCABULARY, 12)
    ids = torch.tensor([i for d in documents for i in d], dtype=torch.int32)
    offsets = torch.tensor([0, *torch.tensor([len(d) for d in documents]).cumsum(0).tolist()])
    return encoder, encoder(ids, offsets)


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
