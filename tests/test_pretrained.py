import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, DistilBertConfig, MPNetConfig, RobertaConfig
from typer.testing import CliRunner

from haste.cli import app
from haste.config import EncoderConfig
from haste.data.fetch import RECORD
from haste.data.registry import Registry
from haste.data.tokens import load_tokens
from haste.encoders.registry import build_encoder, feature_size
from haste.errors import ConfigError, DataError
from haste.files import sha256, write_json
from haste.grid import GridConfig
from haste.pretrained import FILES, check_models, hidden_size, max_tokens

SMALL = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
}
SHAPES = {
    "bert": BertConfig(**SMALL, max_position_embeddings=10),
    "roberta": RobertaConfig(**SMALL, max_position_embeddings=12),
    "roberta of another padding": RobertaConfig(
        **SMALL, max_position_embeddings=14, pad_token_id=3
    ),
    "mpnet": MPNetConfig(**SMALL, max_position_embeddings=12),
    "distilbert": DistilBertConfig(
        vocab_size=20, dim=8, n_layers=1, n_heads=1, hidden_dim=8, max_position_embeddings=10
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_limit_is_where_the_model_itself_fails(tmp_path, name):
    SHAPES[name].save_pretrained(tmp_path)
    model = AutoModel.from_config(SHAPES[name]).eval()
    assert max_tokens(tmp_path) == 10
    model(torch.full((1, 10), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 11), 7))


@pytest.fixture
def own(tmp_path):
    """A folder with a model of at most 10 tokens."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("")
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 10}))
    return folder


def grid(**encoder):
    return GridConfig.from_dict(
        {"name": "g", "datasets": ["d"], "methods": ["dense"], "encoder": encoder}
    )


NONE = Registry({}, {}, {})


def test_a_folder_is_a_model_if_its_files_are_there(own):
    check_models(grid(model=str(own)), NONE)
    (own / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"encoder\.model: .*mine has no tokenizer\.json"):
        check_models(grid(model=str(own)), NONE)
    with pytest.raises(ConfigError, match=r"encoder\.model: org/name is no folder"):
        check_models(grid(model="org/name"), NONE)
    with pytest.raises(ConfigError, match=r"there is no model 'mine'.* \./mine"):
        check_models(grid(model="mine"), NONE)


def test_documents_that_a_transformer_cannot_read_are_refused_before_any_job(own, tmp_path, tiny):
    check_models(grid(model=str(own), kind="transformer", max_len=10), NONE)
    check_models(grid(model=str(own), kind="bag", max_len=600), NONE)
    with pytest.raises(ConfigError, match=r"encoder\.max_len: 11, .* at most 10 tokens"):
        check_models(grid(model=str(own), kind="transformer", max_len=11), NONE)
    tokens = ["--corpus", str(tiny.corpus), "--model", str(own), "--out", str(tmp_path / "tokens")]
    command = ["tokenize", *tokens, "--max-len", "11", "--encoder", "transformer"]
    result = CliRunner().invoke(app, command)
    assert "max_len: 11" in str(result.exception)
    assert not (tmp_path / "tokens").exists()


@pytest.fixture
def fetched(tiny, tmp_path) -> Path:
    """A copy of the model with the record of a fetched one."""
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    files = {name: sha256(model / name) for name in FILES}
    record = dict.fromkeys(("name", "via", "sha256", "licence", "terms", "fetched"), "")
    members = {n: {"size": (model / n).stat().st_size, "sha256": s} for n, s in files.items()}
    write_json(model / RECORD, {**record, "size": 0, "members": members})
    return model


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_fetched_model_is_held_to_its_record_and_a_folder_of_ones_own_is_not(tiny, fetched):
    tokens, config = load_tokens(tiny.tokens, tiny.corpus), tiny.config().encoder
    build_encoder(config, fetched, tokens)
    flip(fetched / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.safetensors"):
        build_encoder(config, fetched, tokens)
    (fetched / RECORD).unlink()
    build_encoder(config, fetched, tokens)


def test_a_fetched_tokenizer_is_held_to_its_record_before_it_is_used(tiny, fetched, tmp_path):
    path = fetched / "tokenizer.json"
    path.write_text(path.read_text().replace("w01", "v01"))
    out = tmp_path / "tokens"
    command = ["tokenize", "--corpus", tiny.corpus, "--model", fetched, "--out", out]
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert isinstance(result.exception, DataError)
    assert "tokenizer.json: wrong sha256" in str(result.exception)
    assert not out.exists()


def test_tokens_that_are_there_are_held_against_the_model(own, tiny):
    from haste.data.corpus import load_corpus

    tokens = load_tokens(tiny.tokens, load_corpus(tiny.corpus).directory)
    config = tiny.config(encoder={"kind": "transformer"}).encoder
    with pytest.raises(ConfigError, match=r"encoder\.max_len: 12, .* at most 10 tokens"):
        build_encoder(config, own, tokens)


@pytest.mark.parametrize(
    ("described", "transformer", "bag"),
    [
        ({"hidden_size": 768}, 768, 768),
        ({"dim": 768}, 768, 768),
        # ELECTRA's and ALBERT's: word embeddings are smaller than what the layers make of them
        ({"hidden_size": 256, "embedding_size": 128}, 256, 128),
    ],
)
def test_a_transformer_has_the_width_of_its_layers_and_a_bag_that_of_its_words(
    tmp_path, described, transformer, bag
):
    write_json(tmp_path / "config.json", described)
    assert hidden_size(tmp_path, "transformer") == transformer
    assert hidden_size(tmp_path, "bag") == bag


def test_a_model_that_does_not_say_its_width(tmp_path, tiny):
    write_json(tmp_path / "config.json", {"vocab_size": 3})
    assert hidden_size(tmp_path, "bag") is None
    with pytest.raises(DataError, match=r"config\.json.*hidden_size"):
        feature_size(EncoderConfig(), tmp_path, load_tokens(tiny.tokens, tiny.corpus))
