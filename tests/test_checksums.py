"""What was written is what is read, to the last bit, or an error that names the file."""

import numpy as np
import pytest

from haste.checksums import (
    check_beside,
    check_file,
    file_sums,
    read_description,
    remove_beside,
    write_beside,
    write_description,
)
from haste.errors import DataError
from haste.files import write_json

VALUE = {"a": 1, "b": [0.5, "text"], "digests": {}}


def flipped(content, at, bit=0):
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return bytes(changed)


def test_every_flip_in_a_description_is_seen_or_means_the_same(tmp_path):
    path = tmp_path / "about.json"
    write_description(path, VALUE)
    assert read_description(path, "a test") == VALUE
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(flipped(content, at, at % 7))
        try:
            found = read_description(path, "a test")
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            # another kind of white space, or a seal by another name, which no reader knows
            assert found == VALUE or len(found) > len(VALUE)


def test_a_description_of_before_there_were_seals_is_read(tmp_path):
    write_json(tmp_path / "old.json", VALUE)
    assert read_description(tmp_path / "old.json", "a test") == VALUE


@pytest.mark.parametrize("at", [0, 100, -1])
def test_a_flip_in_a_file_is_named(tmp_path, at):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(100))
    sums = file_sums([path], tmp_path)
    write_beside(path)
    check_file(path, sums, "haste test")
    check_beside(path, "haste test")
    path.write_bytes(flipped(path.read_bytes(), at))
    for check in (
        lambda: check_file(path, sums, "haste test"),
        lambda: check_beside(path, "haste test"),
    ):
        with pytest.raises(DataError, match=rf"^{path}: is not what was written.*haste test"):
            check()
    remove_beside(path)
    check_beside(path, "haste test")
    check_file(path, {}, "haste test")


def test_a_file_that_has_not_changed_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"1")
    sums = file_sums([path], tmp_path)
    monkeypatch.setattr("haste.checksums.crc32", None)
    check_file(path, sums, "a test")
