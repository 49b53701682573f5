import copy
from pathlib import Path

import pytest
import yaml

from haste.data.registry import load_registry
from haste.errors import ConfigError, DataError
from haste.paths import REGISTRY

REGISTRY_FILE = Path(__file__).parents[2] / REGISTRY
VALID = {
    "sources": {
        "words": {
            "licence": "free",
            "terms": "none",
            "origins": [
                {
                    "via": "pip",
                    "package": "words",
                    "version": "1.0",
                    "file": "words-1.0.tar.gz",
                    "size": 10,
                    "sha256": "0" * 64,
                    "members": {"a.xml": "words-1.0/a.xml"},
                    "unpacked": 20,
                }
            ],
        }
    },
    "datasets": {
        "words-small": {
            "kind": "wordnet",
            "source": "words",
            "propensity_a": 0.55,
            "propensity_b": 1.5,
            "opaque_labels": True,
            "max_len": 32,
            "expected": {"train": 5},
        }
    },
}


def load(tmp_path, value):
    path = tmp_path / "datasets.yaml"
    path.write_text(yaml.safe_dump(value))
    return load_registry(path)


def test_a_valid_registry(tmp_path):
    registry = load(tmp_path, VALID)
    dataset = registry.dataset("words-small")
    assert (dataset.root, dataset.expected, dataset.propensity_a) == ("", {"train": 5}, 0.55)
    assert registry.source("words").origins[0].members == {"a.xml": "words-1.0/a.xml"}
    assert str(registry.source("words").origins[0]) == "words 1.0 (pip)"


ORIGIN = ("sources", "words", "origins", 0)
DATASET = ("datasets", "words-small")


@pytest.mark.parametrize(
    ("where", "value", "text"),
    [
        (("datasett",), {}, "registry: unknown key 'datasett'. Did you mean 'datasets'?"),
        (
            ("sources", "words", "origin"),
            [],
            "sources.words: unknown key 'origin'. Did you mean 'origins'?",
        ),
        (("sources", "words", "origins"), [], "sources.words.origins: expected a list"),
        (("sources", "no/name"), {}, "sources: 'no/name' is not a plain name"),
        (("models",), {"words": VALID["sources"]["words"]}, "'words' is both a source and a model"),
        ((*ORIGIN, "sha"), "", "origins[0]: unknown key 'sha'. Did you mean 'sha256'?"),
        ((*ORIGIN, "sha256"), "12", "origins[0].sha256: '12' is not 64 hexadecimal digits"),
        ((*ORIGIN, "via"), "pipp", "origins[0].via: 'pipp' is not known. Did you mean 'pip'?"),
        ((*ORIGIN, "size"), "10", "origins[0].size: expected int, got '10'"),
        ((*ORIGIN, "version"), 1.0, "origins[0].version: expected str, got 1.0"),
        ((*ORIGIN, "members"), ["a"], "origins[0].members: expected 'name: path in the archive'"),
        ((*ORIGIN, "members"), {"../a": "a"}, "'../a' is not a plain file name"),
        ((*ORIGIN, "file"), "/tmp/a", "'/tmp/a' is not a plain file name"),
        ((*DATASET, "source"), "word", "there is no source 'word'. Did you mean 'words'?"),
        (
            (*DATASET, "kind"),
            "wordnett",
            "datasets.words-small.kind: 'wordnett' is not known. Did you",
        ),
        ((*DATASET, "rot"), "", "datasets.words-small: unknown key 'rot'. Did you mean 'root'?"),
        ((*DATASET, "name"), "x", "datasets.words-small: unknown key 'name'."),
        (
            (*DATASET, "expected"),
            {"trian": 1},
            "expected: unknown key 'trian'. Did you mean 'train'?",
        ),
        ((*DATASET, "expected"), {"train": "1"}, "expected.train: expected a count, got '1'"),
        ((*DATASET, "path"), "/data", "datasets.words-small.source: both a source and a path"),
        ((*DATASET, "source"), "", "datasets.words-small.source: neither a source nor a path"),
        (
            (*DATASET, "text"),
            "titel",
            "datasets.words-small.text: 'titel' is not known. Did you mean",
        ),
        ((*DATASET, "validation"), 1.0, "validation: 1.0 must lie between 0 and 1"),
        (DATASET, 5, "datasets.words-small: expected settings (key: value), got 5"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, where, value, text):
    changed = copy.deepcopy(VALID)
    place = changed
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(ConfigError) as info:
        load(tmp_path, changed)
    assert text in str(info.value)
    assert str(info.value).startswith(str(tmp_path / "datasets.yaml"))


def test_a_missing_key_is_named(tmp_path):
    changed = copy.deepcopy(VALID)
    del changed["sources"]["words"]["licence"]
    with pytest.raises(ConfigError, match=r"sources.words: licence missing"):
        load(tmp_path, changed)


def test_a_folder_of_ones_own_needs_nothing_else(tmp_path):
    dataset = load(tmp_path, {"datasets": {"mine": {"path": "/data/mine"}}}).dataset("mine")
    assert (dataset.kind, dataset.source, dataset.path) == ("xmc", "", "/data/mine")
    assert (dataset.propensity_a, dataset.propensity_b) == (0.55, 1.5)
    assert dataset.text == "title+content"


def test_unknown_names_have_a_hint(tmp_path):
    registry = load(tmp_path, VALID)
    with pytest.raises(ConfigError, match=r"no data set 'words-smal'. Did you mean 'words-small'"):
        registry.dataset("words-smal")
    with pytest.raises(ConfigError, match=r"no source or model 'word'. Did you mean 'words'"):
        registry.source("word")


def test_no_file_says_where_to_look(tmp_path):
    with pytest.raises(DataError, match="give --registry"):
        load_registry(tmp_path / "none.yaml")


def test_the_projects_own_registry():
    registry = load_registry(REGISTRY_FILE)
    assert set(registry.datasets) == {"wordnet", "wordnet-mini", "wordnet-smoke"}
    assert [o.via for o in registry.source("wordnet").origins] == ["pip", "npm"]
    mini = registry.dataset("wordnet-mini")
    assert (mini.root, mini.propensity_a, mini.propensity_b) == ("ENG31-00022119-n", 0.55, 1.5)
    assert all(dataset.opaque_labels for dataset in registry.datasets.values())
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(
        registry.source("all-MiniLM-L6-v2").origins[0].members
    )
