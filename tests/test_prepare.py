"""What a run reads, where there is none: a model of the documents' own words or features, and label orders."""

import pytest

from haste.errors import ConfigError, DataError
from haste.files import read_json
from haste.prepare import FEATURE_DROPOUT, own_encoder

TEXTS = ["red fox", "red hen", "grey hen"]


def encoder(folder, section=None, texts=TEXTS, dense=False):
    return own_encoder(section or {}, texts, folder, dense=dense, size=16, seed=0)


def test_texts_are_read_by_a_model_of_their_own_words(tmp_path):
    made = encoder(tmp_path)
    assert made["model"] == str(tmp_path)
    assert made["residual"] is False
    assert "token_dropout" not in made
    assert read_json(tmp_path / "config.json")["hidden_size"] == 16
    before = (tmp_path / "tokenizer.json").read_bytes()
    assert encoder(tmp_path, texts=["another text another text"]) == made
    assert (tmp_path / "tokenizer.json").read_bytes() == before


def test_features_are_dropped_and_need_no_words(tmp_path):
    made = encoder(tmp_path, texts=None)
    assert made["token_dropout"] == FEATURE_DROPOUT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]
    assert encoder(tmp_path, {"token_dropout": 0.0}, texts=None)["token_dropout"] == 0.0


def test_what_is_given_stays(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    given = {"model": "mine", "kind": "transformer"}
    assert encoder(tmp_path, given) == {**given, "model": str(tmp_path / "mine")}
    assert not (tmp_path / "words").exists()
    with pytest.raises(ConfigError, match=r"encoder\.model: there is no folder"):
        encoder(tmp_path, {"model": "nowhere"})
    assert encoder(tmp_path, texts=None, dense=True)["kind"] == "none"


def test_texts_without_words_are_refused(tmp_path):
    with pytest.raises(DataError, match="no word that occurs twice"):
        encoder(tmp_path, texts=["a", "b"])
