import gzip

import pytest
from dictd_files import ar, dictionary, tar, write_package

from haste.data.dictd import read_entries
from haste.errors import DataError

TABLE = "table /ˈteɪbl/ <n>\npöytä\nwhat one sits at\n"
# far behind the start, so that its place in the text has several digits
LONG = f"long <adj>\npitkä\n{'very ' * 2000}\n"
CHAIR = "chair\ntuoli\n"


def test_entries_are_found_by_the_index(tmp_path):
    package = write_package(tmp_path / "words.deb", [TABLE, LONG, CHAIR])
    assert list(read_entries(package)) == [
        ["table /ˈteɪbl/ <n>", "pöytä", "what one sits at"],
        ["long <adj>", "pitkä", "very " * 2000],
        ["chair", "tuoli"],
    ]


def test_an_entry_of_two_headwords_comes_once(tmp_path):
    index, text = dictionary([TABLE, CHAIR])
    again = index + index.splitlines()[1].replace(b"table", b"desk") + b"\n"
    files = {"words.index": again, "words.dict.dz": gzip.compress(text)}
    package = write_package(tmp_path / "words.deb", files=files)
    assert [lines[0] for lines in read_entries(package)] == ["table /ˈteɪbl/ <n>", "chair"]


def test_what_is_no_dictionary_is_refused(tmp_path):
    index, text = dictionary([TABLE])
    packed = gzip.compress(text)
    path = tmp_path / "words.deb"
    for content, fact in (
        (b"PK\x03\x04", "not an ar archive"),
        (ar({"debian-binary": b"2.0"}), r"no data\.tar"),
        (ar({"data.tar.xz": tar({"words.index": index})}), r"no \.dict\.dz"),
        (
            ar({"data.tar.xz": tar({"words.index": index, "words.dict.dz": packed})})[:-40],
            "truncated",
        ),
        (
            ar({"data.tar.xz": tar({"a.index": index, "a.dict.dz": gzip.compress(text[:-9])})}),
            "'table' lies behind the end",
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"words\.deb: not a Debian package of .*{fact}"):
            list(read_entries(path))
