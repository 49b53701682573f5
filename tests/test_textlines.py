import io
import os

import pytest

from haste.errors import DataError
from haste.textlines import LineStream, iter_lines


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\n\nb\r\r\n", ["a", "", "b\r"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        # these end no line, though str.splitlines and text files think so
        ("a\x0b\x0c\r\x1c\x85\u2028b\n".encode(), ["a\x0b\x0c\r\x1c\x85\u2028b"]),
    ],
)
def test_only_a_line_feed_ends_a_line(content, lines):
    assert list(iter_lines(io.BytesIO(content), name="x")) == lines


@pytest.mark.parametrize(("end", "n"), [(b"", 8), (b"\n", 8), (b"\r\n", 8)])
def test_the_longest_line_may_be_just_so_long(end, n):
    assert list(iter_lines(io.BytesIO(b"a" * n + end), name="x", max_bytes=8)) == ["a" * n]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"more\n"])
def test_a_line_that_is_too_long_is_named_and_not_read(end):
    stream = io.BytesIO(b"fine\n" + b"a" * 9 + end + b"a" * 1000)
    with pytest.raises(DataError, match=r"^standard input: line 2 .*8 bytes"):
        list(iter_lines(stream, name="standard input", max_bytes=8))
    assert stream.tell() <= 5 + 10


def test_what_is_no_text_is_named_by_line_and_byte():
    lines = iter_lines(io.BytesIO(b"fine\ncaf\xe9 au lait\n"), name="x.txt")
    assert next(lines) == "fine"
    with pytest.raises(DataError, match=r"x\.txt: line 2, byte 4: 0xe9 is not utf-8"):
        next(lines)


def test_a_block_is_what_there_is_without_waiting():
    reader, writer = os.pipe()
    blocks = LineStream(reader).blocks("x", max_lines=3)
    os.write(writer, b"a\nb\nc\nd\n")
    assert [next(blocks), next(blocks)] == [["a", "b", "c"], ["d"]]
    os.write(writer, b"e\nf")
    os.close(writer)
    assert list(blocks) == [["e", "f"]]
    os.close(reader)


def test_blocks_are_bounded_and_end_with_the_last_good_line(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"aaaa\n" * 5 + b"caf\xe9\n")
    found = []
    with path.open("rb", buffering=0) as file, pytest.raises(DataError, match="x: line 6"):
        found.extend(LineStream(file.fileno()).blocks("x", max_chars=7))
    assert found == [["aaaa"] * 2, ["aaaa"] * 2, ["aaaa"]]
