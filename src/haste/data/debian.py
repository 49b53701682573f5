"""Packages of Debian as an extreme classification task: from a package's description to the packages it goes with.

A document is a package's description. Its labels are the packages that it depends on, recommends or suggests, and
those that do so with it. Packages of one source, such as a library and its headers, are in the same split.
"""

from __future__ import annotations

import lzma
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from haste.data.linked import Document, Tick, split_of
from haste.errors import DataError
from haste.files import reading
from haste.paths import SPLITS

FILES = ("Packages.xz", "Translation-en.xz")
"""an archive's index of packages, and their long descriptions"""
RELATIONS = ("Depends", "Pre-Depends", "Recommends", "Suggests")
MAX_RELATED = 200
"""a package with more says too little about a document to be its label: libc6, python3"""

# "libfoo1 (>= 2.0) [amd64] | libfoo" begins with the name; "python3:any" asks for any architecture
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*")


@dataclass(frozen=True)
class Package:
    """A binary package: `related` are the packages it names, which may not exist."""

    name: str
    source: str
    """the source package that it is built from"""
    description: str
    related: tuple[str, ...]


def debian_files(raw: Path | str) -> list[Path]:
    """The two files in a folder; raises DataError when one is not there."""
    paths = [Path(raw) / name for name in FILES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{raw}: {', '.join(missing)} is missing. Run: haste fetch debian --out {raw}"
        )
    return paths


def read_packages(raw: Path | str, tick: Tick | None = None) -> dict[str, Package]:
    """All packages by name, sorted. Raises DataError when a file is missing or damaged."""
    index, translations = debian_files(raw)
    descriptions = {
        entry["Description-md5"]: entry.get("Description-en", "")
        for entry in _entries(translations, ("Description-md5",))
    }
    packages: dict[str, Package] = {}
    for entry in _entries(index, ("Package",)):
        name = entry["Package"]
        packages[name] = Package(
            name,
            # "source (version)"; without one the source has the package's name
            entry.get("Source", name).split(" ")[0],
            _text(descriptions.get(entry.get("Description-md5", ""), entry.get("Description", ""))),
            tuple(dict.fromkeys(_related(entry))),
        )
        if tick:
            tick(len(packages))
    return dict(sorted(packages.items()))


def build_documents(packages: Mapping[str, Package]) -> dict[str, list[Document]]:
    """The documents of each split by name; packages with too many relations are none, nor labels.

    Words that are names of a document's labels, or its own, are taken out of its text.
    """
    related: dict[str, set[str]] = defaultdict(set)
    for package in packages.values():
        for other in package.related:
            if other in packages and other != package.name:
                related[package.name].add(other)
                related[other].add(package.name)
    common = {name for name, others in related.items() if len(others) > MAX_RELATED}
    documents: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for name, package in packages.items():
        labels = related[name] - common
        text = _without_names(package.description, {name, *related[name]})
        if name not in common and labels and text:
            document = Document(name, text, tuple(sorted(labels)))
            documents[split_of(package.source)].append(document)
    return documents


def _entries(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file: field -> value, lines that go on joined by line ends."""
    with reading(path, "an index of Debian"), lzma.open(path, "rt", encoding="utf-8") as lines:
        entry: dict[str, str] = {}
        field = ""
        # an empty line ends a paragraph, also the last
        for line in (*lines, "\n"):
            line = line.rstrip("\n")
            if line[:1] in (" ", "\t"):
                entry[field] += f"\n{line[1:]}"
            elif line:
                field, colon, value = line.partition(":")
                if not colon:
                    raise ValueError(f"no field: {line[:60]!r}")
                entry[field] = value.strip()
            elif entry:
                if any(key not in entry for key in needed):
                    raise ValueError(f"a paragraph without {' or '.join(needed)}")
                yield entry
                entry = {}


def _related(entry: Mapping[str, str]) -> Iterator[str]:
    for field in RELATIONS:
        for alternative in re.split("[,|]", entry.get(field, "")):
            name = _NAME.match(alternative.strip())
            if name:
                yield name.group()


def _text(description: str) -> str:
    """On one line: a line with a dot alone stands for an empty one."""
    lines = (line.strip() for line in description.split("\n"))
    first, *rest = [line for line in lines if line != "."] or [""]
    return " ".join(f"{first}. {' '.join(rest)}".split()).removesuffix(".")


def _without_names(text: str, names: set[str]) -> str:
    """Without words that are names, in any case; a full stop after a word is none of it."""
    kept = _WORD.sub(lambda word: "" if word[0].rstrip(".").lower() in names else word[0], text)
    return " ".join(kept.split())
