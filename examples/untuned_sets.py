"""The sets of `untuned.py`: documents and labels that no default was chosen on, written down before any result.

`persons` and `names` read what `haste fetch wordnet` and `haste fetch debian` fetch; `terms` and `devices` read
files of the Debian packages dict-foldoc and usb.ids, unpacked into data/files
(`apt-get download dict-foldoc usb.ids`, then `dpkg-deb -x` of each); `functions` reads Python's own library.
"""

import ast
import gzip
import re
import string
import sysconfig
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from haste.data.debian import read_packages
from haste.data.wordnet import ancestors, count_descendants, read_synsets, subtree

PERSON = "ENG31-00007846-n"
FILES = Path("data/files")
LEFT_OUT = {"test", "tests", "encodings", "site-packages"}
"""folders of Python's library: tests, and codecs that are all alike"""
Data = tuple[list[str], list[str] | sp.csr_matrix, list[list[str]]]
"""uids that decide the split, documents and labels"""


def persons() -> Data:
    """Glosses of WordNet's persons to the kinds of persons that they are, up to all of narrow ones."""
    synsets = read_synsets("data/wordnet/raw")
    descendants, inside = count_descendants(synsets), subtree(synsets, PERSON)
    labels = {
        uid: [a for a in ancestors(synsets, uid) if a in inside and descendants[a] <= 1000]
        for uid in sorted(inside)
    }
    kept = [uid for uid in labels if labels[uid]]
    return kept, [synsets[uid].text for uid in kept], [labels[uid] for uid in kept]


def names() -> Data:
    """Packages that a Debian package goes with, as sparse features, to the words of its name that have five
    packages at least; three packages of a source, half of the sources."""
    by_source = defaultdict(list)
    for package in read_packages("data/debian/raw").values():
        if package.related and zlib.crc32(package.source.encode()) % 2 == 0:
            by_source[package.source].append(package)
    # some have hundreds that are all alike, and would decide the result
    chosen = [package for packages in by_source.values() for package in packages[:3]]
    words = frequent([words_of(package.name) for package in chosen], 5)
    rows = [at for at, row in enumerate(words) if row]
    features = columns_of([chosen[at].related for at in rows])
    return [chosen[at].source for at in rows], features, [words[at] for at in rows]


def terms() -> Data:
    """Entries of the Free On-line Dictionary of Computing to their subjects, such as <language, humour>."""
    folder = FILES / "usr/share/dictd"
    text = gzip.decompress((folder / "foldoc.dict.dz").read_bytes())
    entries: dict[str, str] = {}
    for line in (folder / "foldoc.index").read_text(encoding="utf-8").splitlines():
        _, start, size = line.split("\t")[:3]
        begin = base64_number(start)
        entries[start] = text[begin : begin + base64_number(size)].decode("utf-8", "replace")
    uids, documents, subjects = [], [], []
    for uid, entry in sorted(entries.items()):
        # only the first says what the entry is about
        if found := re.search(r"<([a-z][^<>@]{1,60})>", entry):
            uids.append(uid)
            documents.append(" ".join((entry[: found.start()] + entry[found.end() :]).split()))
            subjects.append(sorted({subject.strip() for subject in found[1].split(",")}))
    return kept(uids, documents, frequent(subjects, 2))


def devices() -> Data:
    """Names of USB devices to their vendors, those with five devices at least."""
    vendor, uids, documents, vendors = "", [], [], []
    path = FILES / "var/lib/usbutils/usb.ids"
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := re.match(r"([0-9a-f]{4}) +(\S.*)", line):
            vendor = found[2]
        elif vendor and (found := re.match(r"\t([0-9a-f]{4}) +(\S.*)", line)):
            uids.append(f"{vendor} {found[1]}")
            documents.append(found[2])
            vendors.append([vendor])
        elif line and not line.startswith(("#", "\t")):
            # lists of other things follow
            vendor = ""
    return kept(uids, documents, frequent(vendors, 5))


def functions() -> Data:
    """What a function of Python's library uses, three names at least, as sparse features, to the words of its name
    that have five functions at least; all functions of a file are on one side of the split."""
    library = Path(sysconfig.get_path("stdlib"))
    uids, used, words = [], [], []
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if LEFT_OUT.isdisjoint(inside.parts):
            for name, uses in functions_of(path):
                uids.append(inside.as_posix())
                used.append(uses)
                words.append(words_of(name))
    words = frequent(words, 5)
    rows = [at for at, row in enumerate(words) if row and len(used[at]) >= 3]
    return (
        [uids[at] for at in rows],
        columns_of([used[at] for at in rows]),
        [words[at] for at in rows],
    )


def functions_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Name of each function in a file but special ones, and the other names in it: variables, attributes and
    arguments."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except SyntaxError:
        # some are there to be refused
        return
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        uses = set()
        for node in ast.walk(function):
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                    uses.add(name)
        if not function.name.startswith("__"):
            yield function.name, sorted(uses - {function.name})


def words_of(name: str) -> list[str]:
    """Words in an identifier or the name of a package, each once."""
    return sorted(set(re.findall("[a-z]{2,}", name.lower())))


def frequent(labels: Sequence[list[str]], least: int) -> list[list[str]]:
    """The labels of each document that `least` documents have."""
    counts = Counter(label for row in labels for label in row)
    return [[label for label in row if counts[label] >= least] for row in labels]


def kept(uids: list[str], documents: list[str], labels: list[list[str]]) -> Data:
    """Documents that have a label."""
    rows = [at for at, row in enumerate(labels) if row]
    return [uids[at] for at in rows], [documents[at] for at in rows], [labels[at] for at in rows]


def columns_of(used: Sequence[Sequence[str]]) -> sp.csr_matrix:
    """Ones [N, D] where a document uses a name."""
    columns = {name: at for at, name in enumerate(sorted({name for row in used for name in row}))}
    places = np.concatenate([[columns[name] for name in row] for row in used])
    bounds = np.cumsum([0, *map(len, used)])
    values = (np.ones(bounds[-1], np.float32), places, bounds)
    return sp.csr_matrix(values, shape=(len(used), len(columns)))


def base64_number(digits: str) -> int:
    """A number of a dictd index."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    number = 0
    for digit in digits:
        number = 64 * number + alphabet.index(digit)
    return number


SETS = {
    "persons": persons,
    "names": names,
    "terms": terms,
    "devices": devices,
    "functions": functions,
}
