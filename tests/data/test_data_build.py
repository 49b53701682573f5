"""From a fetched source to a corpus on disk, checked against what was worked out by hand."""

import hashlib
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from haste.cli import app
from haste.data.build import build_corpus
from haste.data.corpus import load_corpus
from haste.data.registry import Dataset
from haste.errors import DataError

DATASET = Dataset(
    name="tiny",
    kind="wordnet",
    source="words",
    propensity_a=0.55,
    propensity_b=1.5,
    opaque_labels=True,
    max_len=16,
    root="ENG31-00000001-n",
)


def noun(number):
    return f"ENG31-{number:08d}-n"


def record(raw, name="words"):
    members = {
        path.name: {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in raw.iterdir()
    }
    fields = dict.fromkeys(("via", "package", "version", "file", "sha256", "fetched"), "x")
    value = {"name": name, "licence": "free", "terms": "", "size": 1, "members": members, **fields}
    (raw / "SOURCE.json").write_text(json.dumps(value))


@pytest.fixture
def raw(tmp_path, write_xml):
    write_xml(tmp_path / "raw")
    record(tmp_path / "raw")
    return tmp_path / "raw"


# columns: labels of training documents 1, 2, 3, 4, 11, 16; then 13, which only a test document has
COLUMNS = [1, 2, 3, 4, 11, 16, 13]
TRUTH = {
    "train": {1: [2], 2: [1, 3], 3: [1, 2, 4, 11, 16], 4: [1, 2, 3]},
    "validation": {16: [1, 2, 3]},
    "test": {11: [1, 2, 3, 13], 13: [2, 3, 11]},
}


def test_corpus_by_hand(raw, tmp_path):
    ticks = []
    info = build_corpus(DATASET, raw, tmp_path / "corpus", ticks.append)
    assert ticks == list(range(1, 11))
    corpus = load_corpus(tmp_path / "corpus")
    assert corpus.info == info
    labels = corpus.labels
    assert labels["uid"].to_pylist() == [noun(n) for n in COLUMNS]
    assert labels["trainable"].to_pylist() == [True] * 6 + [False]
    assert labels["text"].null_count == 7
    assert labels["name"][1].as_py() == "animal, living creature (n)"
    assert (corpus.positives("train").dtype, corpus.positives("train").indices.dtype) == (
        np.float32,
        np.int32,
    )
    for split, truth in TRUTH.items():
        assert corpus.documents(split)["uid"].to_pylist() == [noun(n) for n in truth]
        dense = [[float(n in found) for n in COLUMNS] for found in truth.values()]
        assert corpus.positives(split).toarray().tolist() == dense
    assert corpus.texts("train")[3] == "Lassie: a dog of films"


def test_reciprocal_by_hand(raw, tmp_path):
    build_corpus(DATASET, raw, tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    # the dog (3) is a training document with labels 11 and 16, so the pairs back are known
    test, validation = np.zeros((2, 7)), np.zeros((1, 7))
    test[0, 2] = validation[0, 2] = 1
    np.testing.assert_array_equal(corpus.reciprocal("test").toarray(), test)
    np.testing.assert_array_equal(corpus.reciprocal("validation").toarray(), validation)


def test_info_and_statistics_by_hand(raw, tmp_path):
    info = build_corpus(DATASET, raw, tmp_path / "corpus")
    assert (info.n_labels, info.n_extra) == (6, 1)
    assert info.documents == {"train": 4, "validation": 1, "test": 2}
    assert info.points == {"train": 11, "validation": 3, "test": 7}
    assert (info.opaque_labels, info.licence, info.max_len) == (True, "free", 16)
    assert info.source["package"] == "x"
    statistics = info.statistics
    assert statistics.labels_per_document == pytest.approx(11 / 4)
    assert statistics.points_per_label == pytest.approx(11 / 6)
    assert statistics.rare_labels == 1.0
    assert statistics.seen == {"validation": 1.0, "test": pytest.approx(6 / 7)}
    assert statistics.reciprocal == {
        "validation": pytest.approx(1 / 3),
        "test": pytest.approx(1 / 7),
    }
    # "entity: what exists" 3, "animal, living creature: a being" 5, "dog, ..." 5, "Lassie..." 5
    assert statistics.words_per_document == pytest.approx(18 / 4)


def test_the_same_corpus_twice_is_the_same_to_the_byte(raw, tmp_path):
    for name in ("one", "two"):
        build_corpus(DATASET, raw, tmp_path / name)
    paths = sorted((tmp_path / "one").iterdir())
    assert len(paths) == 10
    for path in paths:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_source_of_another_name_is_refused(raw, tmp_path):
    (raw / "SOURCE.json").unlink()
    record(raw, name="other")
    with pytest.raises(DataError, match="holds the source 'other', tiny is made of 'words'"):
        build_corpus(DATASET, raw, tmp_path / "corpus")


def test_a_fetched_source_in_a_published_layout(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, labels in (("trn", ([0], [1], [0, 1])), ("tst", ([1],))):
        lines = (json.dumps({"title": f"{name} {ids}", "target_ind": ids}) for ids in labels)
        (folder / f"{name}.json").write_text("\n".join(lines))
    record(folder)
    value = json.loads((folder / "SOURCE.json").read_text())
    address = {"via": "https", "url": "https://example.org/a.zip", "package": "", "version": ""}
    (folder / "SOURCE.json").write_text(json.dumps(value | address))
    dataset = Dataset(name="words", source="words", expected={"train_all": 3, "labels": 2})
    info = build_corpus(dataset, folder, tmp_path / "corpus")
    assert info.documents == {"train": 2, "validation": 1, "test": 1}
    assert info.licence == "free"
    assert info.source == {"via": "https", "url": address["url"], "file": "x", "sha256": "x"}


REGISTRY = """
sources:
  words:
    licence: free
    terms: none
    origins:
      - {via: pip, package: words, version: "1", file: words.tgz, size: 1, sha256: "%s",
         members: {a: b}, unpacked: 1}
datasets:
  tiny: {kind: wordnet, source: words, propensity_a: 0.55, propensity_b: 1.5, opaque_labels: true,
         max_len: 16}
"""


def test_the_command(raw, tmp_path):
    registry = tmp_path / "datasets.yaml"
    registry.write_text(REGISTRY % ("0" * 64))
    options = ["--raw", str(raw), "--out", str(tmp_path / "c"), "--registry", str(registry)]
    result = CliRunner().invoke(app, ["corpus", "tiny", *options])
    assert result.exit_code == 0, result.output
    assert load_corpus(tmp_path / "c").info.dataset == "tiny"
    wrong = CliRunner().invoke(app, ["corpus", "tinny", *options])
    assert "no data set 'tinny'. Did you mean 'tiny'?" in str(wrong.exception)
