import copy
from pathlib import Path

import pytest
import yaml

from haste.data.registry import load_registry
from haste.errors import ConfigError
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
        (("sources", "words", "origins"), [], "sources.words.origins: [] is not allowed"),
        (("sources", "no/name"), {}, "sources: 'no/name' is not a plain name"),
        (("models",), {"words": VALID["sources"]["words"]}, "'words' is both a source and a model"),
        ((*ORIGIN, "sha"), "", "origins[0]: unknown key 'sha'. Did you mean 'sha256'?"),
        ((*ORIGIN, "sha256"), "12", "origins[0].sha256: '12' is not 64 hexadecimal digits"),
        ((*ORIGIN, "via"), "pipp", "origins[0].via: 'pipp' is not allowed"),
        ((*ORIGIN, "size"), "10", "origins[0].size: '10' is not allowed"),
        ((*ORIGIN, "version"), 1.0, "origins[0].version: 1.0 is not allowed"),
        ((*ORIGIN, "members"), ["a"], "origins[0].members: expected settings"),
        ((*ORIGIN, "members"), {"../a": "a"}, "'../a' is not a plain file name"),
        ((*ORIGIN, "members"), {"..": "a"}, "'..' is not a plain file name"),
        ((*ORIGIN, "file"), "/tmp/a", "'/tmp/a' is not a plain file name"),
        ((*DATASET, "source"), "word", "there is no source 'word'. Did you mean 'words'?"),
        (
            (*DATASET, "kind"),
            "wordnett",
            "datasets.words-small.kind: 'wordnett' is not allowed",
        ),
        ((*DATASET, "rot"), "", "datasets.words-small: unknown key 'rot'. Did you mean 'root'?"),
        ((*DATASET, "name"), "x", "datasets.words-small: unknown key 'name'."),
        (
            (*DATASET, "expected"),
            {"trian": 1},
            "expected: 'trian' is not allowed. Input should be 'train', 'validation'",
        ),
        ((*DATASET, "expected"), {"train": "1"}, "expected.train: '1' is not allowed"),
        ((*DATASET, "path"), "/data", "words-small.source: source and path exclude each other"),
        (
            (*DATASET, "source"),
            "",
            "datasets.words-small.source: missing; give one of source, path",
        ),
        ((*DATASET, "synth"), {"documents": 1}, "source and synth exclude each other"),
        (
            (*DATASET, "text"),
            "titel",
            "datasets.words-small.text: 'titel' is not allowed",
        ),
        ((*DATASET, "validation"), 1.0, "validation: 1.0 is not allowed"),
        ((*DATASET, "propensity_a"), 0, "propensity_a: 0 is not allowed"),
        ((*DATASET, "propensity_b"), 0.0, "propensity_b: 0.0 is not allowed"),
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


def test_a_grids_own_data_sets(tmp_path):
    registry = load(tmp_path, VALID)
    more = registry.with_datasets(
        {"mine": {"path": "/data/mine"}, "words-small": {"path": "/data/words", "max_len": 64}}
    )
    assert more.dataset("mine").kind == "xmc"
    changed = more.dataset("words-small")
    assert (changed.path, changed.source, changed.max_len) == ("/data/words", "", 64)
    assert (changed.kind, changed.expected) == ("wordnet", {"train": 5}), "the rest stays"
    assert registry.dataset("words-small").source == "words"
    with pytest.raises(
        ConfigError, match=r"datasets\.mine: unknown key 'pth'\. Did you mean 'path'"
    ):
        registry.with_datasets({"mine": {"pth": "/data/mine"}})
    with pytest.raises(ConfigError, match=r"datasets\.mine\.source: there is no source 'wordz'"):
        registry.with_datasets({"mine": {"source": "wordz"}})
    with pytest.raises(ConfigError, match=r"synth: 'docs' is not allowed\. .*'documents'"):
        registry.with_datasets({"mine": {"synth": {"docs": 5}}})
    generated = registry.with_datasets({"words-small": {"synth": {"like": "eurlex-4k"}}})
    assert generated.dataset("words-small").source == ""


WEB = {"via": "https", "url": "https://example.org/a/set.tar.gz?download=1", "unpacked": 100}


def origin(tmp_path, **changes):
    entry = {**WEB, **changes}
    sources = {"web": {"licence": "free", "terms": "none", "origins": [entry]}}
    return load(tmp_path, {"sources": sources}).source("web").origins[0]


def test_origins_on_the_web(tmp_path):
    assert (origin(tmp_path).archive, origin(tmp_path).is_folder) == ("set.tar.gz", False)
    assert origin(tmp_path, file="other.zip").archive == "other.zip"
    folder = origin(tmp_path, url="https://example.org/model/", members={"a": "sub/a"})
    assert (folder.archive, folder.is_folder) == ("", True)
    drive = origin(tmp_path, via="drive", url="https://drive.google.com/uc?id=1", file="a.zip")
    assert drive.archive == "a.zip"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"url": ""}, "origins[0].url: needed with via: https"),
        (
            {"url": "http://example.org/a.zip"},
            "url: 'http://example.org/a.zip' is not an address that",
        ),
        ({"url": "file:///etc/passwd"}, "is not an address that begins with https://"),
        ({"url": "https://example.org/model/"}, "members: needed with via: https"),
        ({"version": "1"}, "version: means nothing with via: https"),
        (
            {"url": "https://example.org/m/", "members": {"a": "a"}, "size": 5},
            "size: means nothing with a url that ends in /",
        ),
        (
            {"via": "drive", "url": "https://drive.google.com/uc?id=1"},
            "file: needed with via: drive",
        ),
        ({"digests": {"a": "12"}}, "digests.a: '12' is not 64 hexadecimal digits"),
        ({"digests": ["a"]}, "digests: expected settings"),
    ],
)
def test_what_an_origin_on_the_web_must_say(tmp_path, changes, text):
    with pytest.raises(ConfigError) as info:
        origin(tmp_path, **changes)
    assert text in str(info.value)


PAPER = ("Amazon-670K", "AmazonTitles-670K", "Amazon-3M", "LF-Paper2Keywords-8.6M")
PUBLISHED = (
    *PAPER,
    *("Eurlex-4K", "Wiki10-31K", "AmazonCat-13K", "Wiki-500K"),
    *("LF-AmazonTitles-131K", "LF-AmazonTitles-1.3M", "LF-WikiSeeAlso-320K"),
)


def test_the_projects_own_registry():
    registry = load_registry(REGISTRY_FILE)
    own = {"wordnet", "wordnet-mini", "wordnet-smoke", "debian-relations", "wikdict"}
    assert set(registry.datasets) == {*own, *PUBLISHED}
    assert [o.via for o in registry.source("wordnet").origins] == ["pip", "npm"]
    mini = registry.dataset("wordnet-mini")
    assert (mini.root, mini.propensity_a, mini.propensity_b) == ("ENG31-00022119-n", 0.55, 1.5)
    assert all(registry.dataset(name).opaque_labels for name in ("wordnet", "wordnet-mini"))
    for model in registry.models.values():
        assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(
            model.origins[0].members
        )
