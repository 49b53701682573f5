"""Debian packages of DICT dictionaries, for the tests."""

import gzip
import io
import string
import tarfile

DIGITS = f"{string.ascii_uppercase}{string.ascii_lowercase}{string.digits}+/"
ABOUT = "00-database-info\nwords of our own\n"


def base64(value):
    digits = DIGITS[value % 64]
    while value := value // 64:
        digits = DIGITS[value % 64] + digits
    return digits


def dictionary(entries):
    """Index and text of entries, each under the first word of its first line."""
    text, index = b"", []
    for entry in (ABOUT, *entries):
        place = (base64(len(text)), base64(len(entry.encode())))
        index.append("\t".join((entry.split()[0], *place)))
        text += entry.encode()
    return ("\n".join(index) + "\n").encode(), text


def tar(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def ar(members):
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        header = f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n"
        parts += [header.encode(), content, b"\n" * (len(content) % 2)]
    return b"".join(parts)


def write_package(path, entries=(), files=None):
    """`files`: of the package, instead of the dictionary's two."""
    if files is None:
        index, text = dictionary(entries)
        files = {
            "./usr/share/dictd/words.index": index,
            "./usr/share/dictd/words.dict.dz": gzip.compress(text),
        }
    # a member of odd size comes before the data
    path.write_bytes(ar({"debian-binary": b"2.0", "data.tar.xz": tar(files)}))
    return path
