from dataclasses import replace

import pytest

from haste.data import wordnet
from haste.errors import DataError


def noun(number):
    return f"ENG31-{number:08d}-n"


@pytest.fixture
def synsets(tmp_path, write_xml):
    write_xml(tmp_path)
    return wordnet.read_synsets(tmp_path)


def test_xml_by_hand(synsets):
    assert list(synsets) == sorted(synsets)
    assert len(synsets) == 10
    dog = synsets[noun(3)]
    assert dog.lemmas == ("dog", "domestic dog")
    assert dog.text == "dog, domestic dog: it barks"
    assert dog.name == "dog, domestic dog (n)"
    assert dog.targets == (noun(2), noun(4), noun(11), noun(16))
    assert dog.parents == (noun(2),)
    # a pointer of a single word is one of the synset too
    assert synsets[noun(1)].targets == (noun(2), "ENG31-00000005-a")
    assert synsets[noun(4)].parents == (noun(3),)


def test_both_formats_give_the_same_synsets(tmp_path, synsets, write_wndb):
    assert wordnet.read_synsets(write_wndb(tmp_path / "wndb")) == synsets


def test_pointers_at_satellites_are_repaired(synsets, caplog, tmp_path, write_xml):
    assert synsets["ENG31-00000005-a"].targets == (noun(1), "ENG31-00000006-s")
    # a pointer at a true adjective stays
    assert synsets["ENG31-00000006-s"].targets == ("ENG31-00000005-a",)
    with caplog.at_level("INFO"):
        wordnet.read_synsets(write_xml(tmp_path).parent)
    assert "10 synsets; 1 pointers at satellite adjectives repaired" in caplog.text


@pytest.mark.parametrize("target", ["99-n", "7-a"])
def test_a_pointer_that_leads_nowhere_is_refused(tmp_path, write_xml, entries, target):
    # 7 is an adverb: the satellite rule must not guess beyond adjectives
    write_xml(tmp_path, [*entries[:-1], replace(entries[-1], pointers=[("@", target)])])
    with pytest.raises(DataError, match="leads to ENG31-0000"):
        wordnet.read_synsets(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("00000009 03 n 01 cat 0 001 @ 00000001 n 0000\n", "no gloss"),
        (
            "00000009 03 n 01 cat 0 002 @ 00000001 n 0000 | it mews\n",
            "2 pointers announced, 1 found",
        ),
        ("00000009 03 n 01 cat | it mews\n", "list index out of range"),
        ("00000009 03 n zz cat 0 000 | it mews\n", "invalid literal"),
        ("00000009 03 n 01 cat 0 000 | ; \n", "a word, gloss or pointer is missing"),
    ],
)
def test_a_bad_wndb_line_is_named(tmp_path, write_wndb, line, reason):
    write_wndb(tmp_path)
    with (tmp_path / "data.adv").open("a") as stream:
        stream.write(line)
    with pytest.raises(DataError, match=f"data.adv:3: .*{reason}"):
        wordnet.read_synsets(tmp_path)


def test_ancestors_and_descendants_by_hand(synsets):
    assert wordnet.ancestors(synsets, noun(13)) == {noun(11): 1, noun(3): 2, noun(2): 3, noun(1): 4}
    assert wordnet.ancestors(synsets, noun(13), 2) == {noun(11): 1, noun(3): 2}
    counts = wordnet.count_descendants(synsets)
    assert counts == {noun(1): 6, noun(2): 5, noun(3): 4, noun(11): 1}
    assert wordnet.subtree(synsets, noun(3)) == {noun(n) for n in (3, 4, 11, 13, 16)}


def test_descendants_count_once_with_two_ways_up(tmp_path, write_xml, entries):
    # the poodle is under the dog and, a level higher, under the animal
    poodle = replace(entries[-1], pointers=[("@", "3-n"), ("@i", "2-n")])
    write_xml(tmp_path, [*entries[:-1], poodle])
    synsets = wordnet.read_synsets(tmp_path)
    assert wordnet.count_descendants(synsets)[noun(2)] == 5
    assert wordnet.ancestors(synsets, noun(16)) == {noun(2): 1, noun(3): 1, noun(1): 2}


def test_a_cycle_of_hypernyms_ends(tmp_path, write_xml, entries):
    looped = replace(entries[0], pointers=[("@", "2-n")])
    write_xml(tmp_path, [looped, *entries[1:]])
    synsets = wordnet.read_synsets(tmp_path)
    assert wordnet.ancestors(synsets, noun(1)) == {noun(2): 1}
    assert noun(1) not in wordnet.labels_of(synsets, noun(1), wordnet.count_descendants(synsets))


def test_a_synset_is_not_its_own_label(tmp_path, write_xml, entries):
    poodle = replace(entries[-1], pointers=[("@", "3-n"), ("&", "16-n")])
    write_xml(tmp_path, [*entries[:-1], poodle])
    synsets = wordnet.read_synsets(tmp_path)
    assert wordnet.labels_of(synsets, noun(16), dict.fromkeys(synsets, 9999)) == [noun(3)]


LABELS = {
    1: [2],  # and 5-a, below
    2: [1, 3],
    3: [1, 2, 4, 11, 16],
    4: [1, 2, 3],
    11: [1, 2, 3, 13],
    13: [2, 3, 11],  # 1 is four levels up
    16: [1, 2, 3],
}


@pytest.mark.parametrize("number", LABELS)
def test_labels_by_hand(synsets, number):
    counts = wordnet.count_descendants(synsets)
    labels = wordnet.labels_of(synsets, noun(number), counts)
    nouns = sorted(label for label in labels if label.endswith("n"))
    assert nouns == [noun(n) for n in LABELS[number]]
    assert len(labels) == len(set(labels))


def test_wide_ancestors_are_dropped_but_wide_parents_stay(synsets):
    counts = {**dict.fromkeys(synsets, 0), noun(1): 1001, noun(2): 1001}
    assert wordnet.labels_of(synsets, noun(4), counts) == [noun(3)]
    assert wordnet.labels_of(synsets, noun(2), counts) == [noun(1), noun(3)]
    counts = {**dict.fromkeys(synsets, 0), noun(1): 1001, noun(2): 1000}
    assert wordnet.labels_of(synsets, noun(4), counts) == [noun(3), noun(2)]


def test_documents(synsets):
    documents = wordnet.build_documents(synsets)
    texts = {split: [d.text for d in rows] for split, rows in documents.items()}
    assert texts["validation"] == ["poodle: a curly dog"]
    assert texts["test"][-2:] == ["puppy: a young dog", "toy puppy: a small puppy"]
    everything = [text for rows in texts.values() for text in rows]
    assert "big, large: of great size" in everything
    assert not any(text.startswith("alone") for text in everything)  # it has no label
    assert len(everything) == 9


def test_documents_of_a_subtree(synsets):
    documents = wordnet.build_documents(synsets, root=noun(3))
    labels = {d.uid: sorted(d.labels) for rows in documents.values() for d in rows}
    assert labels == {
        noun(3): [noun(4), noun(11), noun(16)],
        noun(4): [noun(3)],
        noun(11): [noun(3), noun(13)],
        noun(13): [noun(3), noun(11)],
        noun(16): [noun(3)],
    }
    with pytest.raises(DataError, match="'nowhere' is not a synset"):
        wordnet.build_documents(synsets, root="nowhere")
