"""Documents end to end: transformers' modules say what is to come out."""

import gc

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    MPNetConfig,
    PreTrainedModel,
    RobertaConfig,
)

from haste.config import EncoderConfig
from haste.encoders.packed import PackedEncoder
from haste.encoders.transformer import TransformerEncoder, transformer_encoder
from haste.errors import ConfigError
from haste.training import flat

SMALL = {"vocab_size": 60, "num_hidden_layers": 3, "num_attention_heads": 4}
SHAPES = {
    "bert": BertConfig(hidden_size=32, intermediate_size=64, **SMALL),
    "minilm": BertConfig(hidden_size=48, intermediate_size=192, **SMALL),
    "distilroberta": RobertaConfig(
        hidden_size=32, intermediate_size=64, max_position_embeddings=20, type_vocab_size=1, **SMALL
    ),
    "mpnet": MPNetConfig(hidden_size=32, intermediate_size=64, max_position_embeddings=20, **SMALL),
}
LENGTHS = [5, 1, 12, 7]
OFFSETS = torch.tensor([0, 5, 6, 18, 25])
IDS = torch.randint(3, 60, (25,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)


def model_of(shape, dropout=0.0):
    torch.manual_seed(1)
    own = {**shape.to_dict(), "hidden_dropout_prob": dropout}
    own["attention_probs_dropout_prob"] = dropout
    model = AutoModel.from_config(type(shape)(**own), attn_implementation="eager")
    for parameter in model.parameters():
        if parameter.ndim == 1:
            # norms and biases that begin as ones and zeros would hide what is done with them
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def learned(encoder, ids=IDS, **others):
    """Features and the gradients of all parameters, by name."""
    encoder.train()
    torch.manual_seed(7)
    features = encoder(ids, OFFSETS, **others)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
    (features * weights).sum().backward()
    named = dict(encoder.named_parameters())
    assert len({id(parameter) for parameter in named.values()}) == len(named)
    return features.detach(), {name: each.grad for name, each in named.items()}


def assert_close(found, wanted):
    assert torch.allclose(found[0], wanted[0], atol=1e-5)
    for name, value in wanted[1].items():
        if value is not None:
            assert torch.allclose(found[1][name], value, atol=1e-4, rtol=1e-4), name


@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_features_and_gradients_are_those_of_transformers(shape, pooling, again):
    wanted = learned(TransformerEncoder(model_of(shape), pooling))
    packed = PackedEncoder(model_of(shape), pooling, gradient_checkpointing=again)
    assert_close(learned(packed), wanted)
    assert torch.allclose(packed.eval()(IDS, OFFSETS), wanted[0], atol=1e-5)


def test_ids_after_the_last_document_change_nothing():
    shape = SHAPES["bert"]
    wanted = learned(PackedEncoder(model_of(shape), "mean"))
    padded = torch.cat([IDS, torch.zeros(31, dtype=torch.int32)])
    assert_close(learned(PackedEncoder(model_of(shape), "mean"), padded, longest=12), wanted)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_last_document_without_tokens_leaves_the_others_as_they_are(pooling):
    encoder = PackedEncoder(model_of(SHAPES["bert"]), pooling).eval()
    more = torch.cat([OFFSETS, OFFSETS[-1:]])
    assert torch.allclose(encoder(IDS, more)[:-1], encoder(IDS, OFFSETS), atol=1e-6)


@pytest.mark.parametrize("encoder", [PackedEncoder, TransformerEncoder])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_document_without_tokens_has_features_of_zero(pooling, encoder):
    features = encoder(model_of(SHAPES["bert"]), pooling).eval()(IDS, OFFSETS[[0, 1, 1, 4]])
    assert features.any(1).tolist() == [True, False, True]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_is_computed_again_draws_the_same_dropout(shape):
    kept, again = (
        learned(PackedEncoder(model_of(shape, 0.2), "mean", gradient_checkpointing=on))
        for on in (False, True)
    )
    assert torch.equal(kept[0], again[0])
    for name, value in kept[1].items():
        if value is not None:
            assert torch.equal(again[1][name], value), name
    assert not torch.allclose(
        kept[0], learned(PackedEncoder(model_of(shape), "mean"))[0], atol=1e-2
    )


def test_a_checkpointed_layer_keeps_two_tensors():
    encoder = PackedEncoder(model_of(SHAPES["bert"]), "mean", gradient_checkpointing=True)

    def activations():
        tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
        return {id(each) for each in tensors if len(each.shape) > 1 and each.shape[0] == len(IDS)}

    before = activations()
    features = encoder(IDS, OFFSETS)
    assert len(activations() - before) == 2 * 3
    features.sum().backward()
    assert activations() <= before


def test_the_gradient_is_that_of_the_features_with_their_dropout():
    encoder = PackedEncoder(model_of(SHAPES["bert"], 0.2).double(), "mean")
    weight = encoder.model.encoder.layer[1].attention.self.key.weight
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).double()

    def total(step=0.0):
        torch.manual_seed(7)
        with torch.no_grad():
            weight.add_(step * direction)
        found = encoder(IDS, OFFSETS).square().sum()
        with torch.no_grad():
            weight.sub_(step * direction)
        return found

    encoder.train()
    total().backward()
    slope = float((total(1e-5) - total(-1e-5)) / 2e-5)
    assert slope == pytest.approx(float((weight.grad * direction).sum()), rel=1e-5)


def test_gradients_are_written_to_parts_of_one():
    shape = SHAPES["minilm"]
    wanted = learned(PackedEncoder(model_of(shape), "mean"))
    encoder = PackedEncoder(model_of(shape), "mean")
    flat.flatten([each for each in encoder.parameters() if each.ndim > 1])
    flat.flatten([each for each in encoder.parameters() if each.ndim == 1])
    own = encoder.model.encoder.layer[0].attention.self
    places = [own.query.weight.grad.data_ptr(), own.value.bias.grad.data_ptr()]
    assert_close(learned(encoder), wanted)
    assert places == [own.query.weight.grad.data_ptr(), own.value.bias.grad.data_ptr()]


def test_a_second_backward_pass_is_refused():
    features = PackedEncoder(model_of(SHAPES["bert"]), "mean")(IDS, OFFSETS)
    features.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second"):
        features.sum().backward()


def test_sparse_features_are_refused():
    with pytest.raises(ConfigError, match=r"encoder\.kind"):
        PackedEncoder(model_of(SHAPES["bert"]), "cls")(IDS, OFFSETS, torch.ones(len(IDS)))


def chosen(attention, model):
    """The class of encoder for encoder.attention."""
    config = EncoderConfig(kind="transformer", attention=attention, max_len=12)
    return type(transformer_encoder(model, config))


@pytest.fixture
def on_gpu(monkeypatch):
    """Models in bf16 say that they are on an H100."""
    monkeypatch.setattr(PreTrainedModel, "device", torch.device("cuda", 0))
    monkeypatch.setattr(PreTrainedModel, "dtype", torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))


def test_documents_are_packed_on_a_cpu_where_that_is_asked_for():
    model = model_of(SHAPES["bert"])
    found = [chosen(attention, model) for attention in ("auto", "torch", "packed")]
    assert found == [TransformerEncoder, TransformerEncoder, PackedEncoder]


@pytest.mark.usefixtures("on_gpu")
def test_documents_are_packed_on_a_gpu_unless_torch_is_asked_for():
    model = model_of(SHAPES["bert"])
    found = [chosen(attention, model) for attention in ("auto", "torch", "packed")]
    assert found == [PackedEncoder, TransformerEncoder, PackedEncoder]
    config = EncoderConfig(kind="transformer", max_len=12)
    assert not transformer_encoder(model, config).gradient_checkpointing


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("attention", ["auto", "packed"])
def test_what_flash_attention_does_not_take_is_padded(monkeypatch, attention):
    odd = BertConfig(**{**SHAPES["bert"].to_dict(), "hidden_size": 48})
    assert chosen(attention, model_of(odd)) == TransformerEncoder
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "dtype", torch.float32)
        assert chosen(attention, model_of(SHAPES["bert"])) == TransformerEncoder
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert chosen(attention, model_of(SHAPES["bert"])) == TransformerEncoder


@pytest.mark.parametrize("attention", ["auto", "packed"])
def test_an_encoder_without_a_way_of_its_own_runs_as_it_is(attention):
    shape = DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=4, vocab_size=60)
    assert chosen(attention, AutoModel.from_config(shape)) == TransformerEncoder


def test_relative_positions_are_packed_for_short_documents():
    model = model_of(SHAPES["mpnet"])
    short, long = (
        EncoderConfig(kind="transformer", attention="packed", max_len=n) for n in (64, 65)
    )
    assert type(transformer_encoder(model, short)) is PackedEncoder
    assert type(transformer_encoder(model, long)) is TransformerEncoder
