import gzip

import pytest

from haste.data.readers.lines import count_lines, read_lines, side_by_side, write_lines
from haste.errors import DataError


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz"])
def test_lines(tmp_path, name):
    path = tmp_path / name
    for content, lines in ((b"", []), (b"a\r\n\nb", ["a", "", "b"])):
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert list(read_lines(path)) == lines
        assert count_lines(path) == (len(lines), 0)


@pytest.mark.parametrize(("content", "counts"), [(b"\n", (1, 1)), (b"\na\n\n \r\n", (4, 2))])
def test_blank_lines_at_the_end_are_counted(tmp_path, content, counts):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    assert count_lines(path) == counts


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-12], lambda b: b"plain\n" + b, lambda b: b[:40] + b"\xff" * 40]
)
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = tmp_path / "x.json.gz"
    content = "".join(f"line {n * n}\n" for n in range(1000)).encode()
    path.write_bytes(damage(gzip.compress(content)))
    with pytest.raises(DataError, match=r"x\.json\.gz: cannot be read to its end"):
        list(read_lines(path))


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="none: cannot be read to its end"):
        count_lines(tmp_path / "none")


@pytest.mark.parametrize(("left", "right"), [("ab", "abc"), ("abc", "ab")])
def test_files_of_different_length(tmp_path, left, right):
    paths = tmp_path / "left", tmp_path / "right"
    short, long = paths if len(left) < len(right) else reversed(paths)
    with pytest.raises(DataError, match=f"{short}: ends after 2 documents, but {long} has more"):
        list(side_by_side(left, right, *paths))
    assert list(side_by_side("ab", "cd", *paths)) == [("a", "c"), ("b", "d")]


def test_what_is_written_is_read_and_always_the_same(tmp_path):
    lines = ["a", "", "späte Birne"]
    path = tmp_path / "x.txt.gz"
    write_lines(path, iter(lines))
    assert list(read_lines(path)) == lines
    # no name and no time of writing
    assert path.read_bytes()[3:8] == b"\0" * 5
