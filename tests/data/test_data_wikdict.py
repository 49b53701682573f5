"""Small dictionaries by hand: their senses, documents and corpus."""

import pytest
from dictd_files import write_package

from haste.data import wikdict
from haste.data.build import build_corpus
from haste.data.corpus import load_corpus
from haste.data.linked import split_of
from haste.data.registry import Dataset
from haste.data.wikdict import Sense, parse_entry
from haste.errors import DataError

ENTRIES = {
    "fin": [
        "hut //hʌt// /hət/ <n>\nmaja, mökki\na small house\n",
        "run <v>\n1. juosta\nto move fast\n2. johtaa, vetää 2.\nto lead\n 3.\nto go on\n",
    ],
    "rus": ["hut //hʌt// <n>\nхи́жина\na small house\n", "fast\nбы́стро\n"],
    "spa": ["hut <n>\nchoza\na hat for heads\n"],
}
HOUSE = Sense("hut", "n", "a small house")


def write(folder, entries=ENTRIES):
    folder.mkdir(exist_ok=True)
    for language in wikdict.LANGUAGES:
        write_package(folder / f"eng-{language}.deb", entries.get(language, ()))
    return folder


def parsed(*lines):
    return [(sense.definition, words) for sense, words in parse_entry(lines)]


def test_a_headline_has_word_pronunciations_and_part_of_speech():
    for line, expected in (
        ("hut //hʌt// /hət/ <n>", ("hut", "n")),
        ("ice cream <n>", ("ice cream", "n")),
        ("and/or /ænd ɔː/", ("and/or", "")),
        ("fast", ("fast", "")),
        (" //ət// <preposition>", ("", "preposition")),
    ):
        ((sense, _),) = parse_entry([line, "sana", "a meaning"])
        assert (sense.headword, sense.part_of_speech) == expected


def test_senses_are_numbered_where_there_are_several():
    assert parsed("run <v>", "1. juosta", "to move", "2. johtaa, vetää", "to lead") == [
        ("to move", ["juosta"]),
        ("to lead", ["johtaa", "vetää"]),
    ]
    # a number that is not the next one belongs to the definition
    assert parsed("run <v>", "1. juosta", "to move", "3. fast", "2. johtaa", "to lead") == [
        ("to move 3. fast", ["juosta"]),
        ("to lead", ["johtaa"]),
    ]
    assert parsed("year <n>", "vuosi", "1. of the sun") == [("1. of the sun", ["vuosi"])]


def test_a_sense_may_have_several_definitions_or_none():
    assert parsed("run <v>", "johtaa 2.", "to lead", " 3.", "to", " go on") == [
        ("to lead", ["johtaa"]),
        ("to go on", ["johtaa"]),
    ]
    # without an announcement, numbers are part of the definition
    assert parsed("run <v>", "johtaa", "to lead", " 3.", "men") == [("to lead 3. men", ["johtaa"])]
    assert parsed("run <v>", "1. juosta", "2. johtaa", "to lead") == [("to lead", ["johtaa"])]
    assert parsed("run <v>", "juosta") == parsed("run <v>") == []


def test_stress_is_no_part_of_a_word_and_other_accents_are():
    assert parsed("hut <n>", "хи\u0301жина, край, a\u0301rbol", "a") == [
        ("a", ["хижина", "край", "árbol"])
    ]


def test_senses_of_all_languages_meet(tmp_path):
    senses = wikdict.read_senses(write(tmp_path))
    assert list(senses) == sorted(senses)
    assert senses[HOUSE] == {"fin:maja", "fin:mökki", "rus:хижина"}
    assert senses[Sense("hut", "n", "a hat for heads")] == {"spa:choza"}
    assert senses[Sense("run", "v", "to go on")] == {"fin:johtaa", "fin:vetää"}
    # without a definition it is no document
    assert len(senses) == 5


def test_senses_of_one_headword_are_in_one_split(tmp_path):
    built = wikdict.build_documents(wikdict.read_senses(write(tmp_path)))
    of = {document.uid: (split, document) for split, rows in built.items() for document in rows}
    assert list(of) != []
    assert {of[f"hut/n/{number}"][0] for number in (1, 2)} == {split_of("hut")}
    assert {of[f"run/v/{number}"][0] for number in (1, 2, 3)} == {split_of("run")}
    house = of["hut/n/2"][1]
    assert (house.text, house.labels) == (
        "hut: a small house",
        ("fin:maja", "fin:mökki", "rus:хижина"),
    )


def test_the_corpus_has_the_words_as_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(
        wikdict, "split_of", {"hut": "train", "run": "test", "low": "validation"}.get
    )
    more = {**ENTRIES, "swe": ["low <adj>\nlåg\nnot high\n", "run <v>\nleda\nto lead\n"]}
    write(tmp_path / "raw", {**more, "fin": [*more["fin"], "low <adj>\nmaja\nnot high\n"]})
    dataset = Dataset("mine", kind="wikdict", path=str(tmp_path / "raw"))
    info = build_corpus(dataset, tmp_path / "raw", tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    labels = corpus.labels["uid"].to_pylist()
    assert sorted(labels[: info.n_labels]) == ["fin:maja", "fin:mökki", "rus:хижина", "spa:choza"]
    assert info.documents == {"train": 2, "validation": 1, "test": 3}
    assert info.statistics.seen["validation"] == 0.5
    assert info.statistics.seen["test"] == 0


def test_damaged_and_missing_dictionaries_are_named(tmp_path):
    write(tmp_path)
    package = tmp_path / "eng-nor.deb"
    package.write_bytes(package.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"eng-nor\.deb"):
        wikdict.read_senses(tmp_path)
    package.unlink()
    with pytest.raises(DataError, match=r"eng-nor\.deb is missing"):
        wikdict.read_senses(tmp_path)
