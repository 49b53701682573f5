"""A small archive by hand: its packages, documents and corpus."""

import lzma

import pytest

from haste.data import debian
from haste.data.build import build_corpus
from haste.data.corpus import load_corpus
from haste.data.linked import split_of
from haste.data.registry import Dataset
from haste.errors import DataError

PACKAGES = """\
Package: viewer
Source: pictures (2.1-1)
Depends: libpic2 (>= 2.0) | libpic-old, base:any
Recommends: fonts
Description: shows pictures
Description-md5: aa

Package: libpic2
Source: pictures
Depends: base
Description: library of Viewer
Description-md5: bb

Package: fonts
Suggests: viewer, nowhere
Description: letters for viewer.
Description-md5: cc

Package: base
Description: in every system
Description-md5: dd

Package: alone
Description: needs nothing
Description-md5: ee
"""
TRANSLATIONS = """\
Package: viewer
Description-md5: aa
Description-en: shows pictures
 One after the other,
 with LIBPIC2.
 .
 Fast.

Package: libpic2
Description-md5: bb
Description-en: library of Viewer
"""


def write(folder, packages=PACKAGES, translations=TRANSLATIONS):
    folder.mkdir(exist_ok=True)
    for name, text in zip(debian.FILES, (packages, translations), strict=True):
        (folder / name).write_bytes(lzma.compress(text.encode()))
    return folder


def documents(folder):
    built = debian.build_documents(debian.read_packages(write(folder)))
    return {document.uid: document for rows in built.values() for document in rows}


def test_packages_by_hand(tmp_path):
    packages = debian.read_packages(write(tmp_path))
    assert list(packages) == ["alone", "base", "fonts", "libpic2", "viewer"]
    viewer = packages["viewer"]
    assert viewer.source == packages["libpic2"].source == "pictures"
    assert packages["base"].source == "base"
    assert viewer.related == ("libpic2", "libpic-old", "base", "fonts")
    assert viewer.description == "shows pictures. One after the other, with LIBPIC2. Fast"
    # without a translation the index's own line
    assert packages["fonts"].description == "letters for viewer."


def test_relations_go_both_ways_and_names_of_labels_leave_the_text(tmp_path):
    found = documents(tmp_path)
    assert set(found) == {"base", "fonts", "libpic2", "viewer"}
    assert found["viewer"].labels == ("base", "fonts", "libpic2")
    assert found["libpic2"].labels == ("base", "viewer")
    assert found["fonts"].labels == ("viewer",)
    assert found["libpic2"].text == "library of"
    assert found["viewer"].text == "shows pictures. One after the other, with Fast"


def test_a_package_that_goes_with_too_many_is_no_document_and_no_label(tmp_path, monkeypatch):
    monkeypatch.setattr(debian, "MAX_RELATED", 2)
    found = documents(tmp_path)
    assert "viewer" not in found
    assert "fonts" not in found
    assert found["libpic2"].labels == ("base",)


def test_packages_of_one_source_are_in_one_split(tmp_path):
    built = debian.build_documents(debian.read_packages(write(tmp_path)))
    of = {document.uid: split for split, rows in built.items() for document in rows}
    assert of["viewer"] == of["libpic2"] == split_of("pictures")


def test_the_corpus_knows_reciprocal_pairs(tmp_path, monkeypatch):
    splits = {"pictures": "train", "base": "test", "fonts": "validation"}
    monkeypatch.setattr(debian, "split_of", splits.get)
    write(tmp_path / "raw", PACKAGES.partition("Package: alone")[0])
    dataset = Dataset("mine", kind="debian", path=str(tmp_path / "raw"))
    build_corpus(dataset, tmp_path / "raw", tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    labels = corpus.labels["uid"].to_pylist()
    assert sorted(labels[: corpus.info.n_labels]) == ["base", "fonts", "libpic2", "viewer"]
    of_base = corpus.reciprocal("test").toarray()[0]
    assert {labels[column] for column in of_base.nonzero()[0]} == {"libpic2", "viewer"}


@pytest.mark.parametrize(
    ("packages", "fact"),
    [
        ("Package: a\nno field\n", "no field"),
        ("Description: a\n", "without Package"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, packages, fact):
    with pytest.raises(DataError, match=rf"Packages\.xz: not an index of Debian .*{fact}"):
        debian.read_packages(write(tmp_path, packages))


def test_a_cut_file_and_a_missing_one_are_named(tmp_path):
    write(tmp_path)
    cut = tmp_path / debian.FILES[1]
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"Translation-en\.xz"):
        debian.read_packages(tmp_path)
    cut.unlink()
    with pytest.raises(DataError, match=r"Translation-en\.xz is missing"):
        debian.read_packages(tmp_path)


def test_a_description_of_a_dot_alone_is_none(tmp_path):
    write(tmp_path, PACKAGES.replace("Description: letters for viewer.", "Description: ."))
    assert debian.read_packages(tmp_path)["fonts"].description == ""
