import json

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel, MPNetConfig

from haste.encoders.transformer import TransformerEncoder, empty_transformer, load_transformer
from haste.errors import ConfigError

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertModel(BertConfig(**SMALL)).save_pretrained(path)
    return path


IDS = torch.tensor([2, 10, 11, 3, 2, 20, 3], dtype=torch.int32)
OFFSETS = torch.tensor([0, 4, 7])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_changes_nothing(folder, pooling):
    encoder = TransformerEncoder(load_transformer(folder, torch.float32), pooling).eval()
    together = encoder(IDS, OFFSETS)
    alone = torch.cat(
        [encoder(IDS[:4], torch.tensor([0, 4])), encoder(IDS[4:], torch.tensor([0, 3]))]
    )
    assert together.shape == (2, 16)
    assert encoder.feature_size == 16
    assert torch.allclose(together, alone, atol=1e-5)


def test_pooling_by_hand(folder):
    hidden = (
        TransformerEncoder(load_transformer(folder, torch.float32), "cls")
        .eval()
        .model(IDS[None, :4].long())
    )
    hidden = hidden.last_hidden_state[0]
    for pooling, want in (("cls", hidden[0]), ("mean", hidden.mean(0))):
        encoder = TransformerEncoder(load_transformer(folder, torch.float32), pooling).eval()
        assert torch.allclose(encoder(IDS[:4], torch.tensor([0, 4]))[0], want, atol=1e-5)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"encoder.model: cannot load .*config.json"):
        load_transformer(tmp_path, torch.float32)


def test_code_in_a_models_folder_is_never_run(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "x", "auto_map": {"AutoConfig": "x.X", "AutoModel": "x.X"}})
    )
    (tmp_path / "x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda _: "y")
    with pytest.raises(ConfigError, match="cannot load"):
        load_transformer(tmp_path, torch.float32)
    assert not (tmp_path / "ran").exists()


def test_a_name_of_the_hub_is_not_looked_up(monkeypatch):
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", pytest.fail)
    with pytest.raises(ConfigError, match=r"encoder\.model: org/name is no folder"):
        load_transformer("org/name", torch.float32)


def test_sparse_features_are_refused(folder):
    encoder = TransformerEncoder(load_transformer(folder, torch.float32), "cls")
    with pytest.raises(ConfigError, match=r"encoder\.kind: a transformer reads text, .* use bag"):
        encoder(IDS, OFFSETS, torch.ones(len(IDS)))


def test_the_longest_document_may_be_told(folder):
    encoder = TransformerEncoder(load_transformer(folder, torch.float32), "mean").eval()
    assert torch.equal(encoder(IDS, OFFSETS, longest=4), encoder(IDS, OFFSETS))
    assert encoder.capturable


def test_the_mask_is_whole_and_never_left_to_transformers(folder, monkeypatch):
    encoder = TransformerEncoder(load_transformer(folder, torch.float32), "mean").eval()
    seen = []
    monkeypatch.setattr(
        encoder.model,
        "forward",
        lambda input_ids, attention_mask, _own=encoder.model.forward: (
            seen.append(attention_mask) or _own(input_ids, attention_mask)
        ),
    )
    encoder(IDS[:4], torch.tensor([0, 2, 4]))
    encoder(IDS, OFFSETS)
    assert [mask.shape for mask in seen] == [(2, 1, 1, 2), (2, 1, 1, 4)]
    assert seen[0].all()
    assert seen[1][:, 0, 0].tolist() == [[True] * 4, [True] * 3 + [False]]


def test_models_without_fused_attention_see_no_padding_either(tmp_path):
    torch.manual_seed(0)
    AutoModel.from_config(MPNetConfig(**SMALL)).save_pretrained(tmp_path)
    model = load_transformer(tmp_path, torch.float32)
    assert not model._supports_sdpa
    encoder = TransformerEncoder(model, "mean").eval()
    # its masks are made on the host: capturing a step would end in an error
    assert not encoder.capturable
    alone = encoder(IDS[4:], torch.tensor([0, 3]))
    assert torch.allclose(encoder(IDS, OFFSETS)[1:], alone, atol=1e-6)


@pytest.mark.parametrize("load", [load_transformer, empty_transformer])
def test_a_kernel_that_a_models_folder_names_is_not_fetched(folder, tmp_path, load):
    BertModel.from_pretrained(folder).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    named = json.dumps({**config, "attn_implementation": "someone/kernel"})
    (tmp_path / "config.json").write_text(named)
    assert load(tmp_path, torch.float32).config._attn_implementation == "sdpa"


def test_activations_computed_again_give_the_same_gradient(folder):
    gradients = []
    for gradient_checkpointing in (False, True):
        model = load_transformer(folder, torch.float32)
        encoder = TransformerEncoder(model, "mean", gradient_checkpointing=gradient_checkpointing)
        encoder.train()
        torch.manual_seed(5)
        encoder(IDS, OFFSETS).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert model.is_gradient_checkpointing
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
