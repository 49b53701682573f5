"""WordNet 3.1 as an extreme classification task: from a synset's words and gloss to its neighbours.

A document is a synset, "lemma, lemma: gloss". Its labels are the synsets it points at and its near
hypernym ancestors. Two file formats are read, to the same synsets: the XML of one source and
Princeton's own WNDB files of the other.
"""

from __future__ import annotations

import logging
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from haste.data.linked import Document, Tick, split_of
from haste.data.readers.base import whole_number
from haste.data.readers.lines import read_lines
from haste.errors import DataError
from haste.files import reading
from haste.paths import SPLITS

log = logging.getLogger(__name__)

XML_FILE = "english_wordnet_version_31.xml"
WNDB_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
ANCESTOR_LEVELS = 3
MAX_DESCENDANTS = 1000
"""an ancestor with more descendants says too little about a document to be its label"""

_XML_PARENTS = ("HYPERNYM", "INSTANCE_HYPERNYM")
_WNDB_PARENTS = ("@", "@i")
# "galore(ip)": where an adjective may stand, which is grammar and no part of the word
_POSITION_MARK = re.compile(r"\((?:a|p|ip)\)$")


@dataclass(frozen=True)
class Synset:
    """A set of synonyms. `targets` is what it points at, of any type; `parents` those of them that
    are hypernyms or instance hypernyms. Readers give them as the file does, `repair_pointers` sorted
    and each once."""

    uid: str
    lemmas: tuple[str, ...]
    gloss: str
    targets: tuple[str, ...]
    parents: tuple[str, ...]

    @property
    def text(self) -> str:
        """The document."""
        return f"{', '.join(self.lemmas)}: {self.gloss}"

    @property
    def name(self) -> str:
        """For display: "dog, domestic dog (n)"."""
        return f"{', '.join(self.lemmas)} ({self.uid[-1]})"


def wordnet_files(raw: Path | str) -> list[Path]:
    """The files of the format that lies in a folder; raises DataError when there is neither."""
    raw = Path(raw)
    if (raw / XML_FILE).is_file():
        return [raw / XML_FILE]
    if (raw / WNDB_FILES[0]).is_file():
        return [raw / name for name in WNDB_FILES]
    raise DataError(
        f"{raw}: holds neither {XML_FILE} nor {', '.join(WNDB_FILES)}. Run: haste fetch wordnet --out {raw}"
    )


def read_synsets(raw: Path | str, tick: Tick | None = None) -> dict[str, Synset]:
    """All synsets by uid, sorted, from whichever format lies in the folder `raw`; pointers repaired.

    Raises DataError when neither format is there or a file is damaged.
    """
    paths = wordnet_files(raw)
    synsets = _read_xml(*paths) if len(paths) == 1 else _read_wndb(paths)
    table: dict[str, Synset] = {}
    for synset in synsets:
        if synset.uid in table:
            raise DataError(f"{raw}: synset {synset.uid} occurs twice. Fetch the source again.")
        table[synset.uid] = synset
        if tick:
            tick(len(table))
    return repair_pointers(dict(sorted(table.items())))


def _read_xml(path: Path) -> Iterator[Synset]:
    """One element at a time; the pointers of single words (inside LITERAL) are a synset's too."""
    with reading(path, "a WordNet XML file"):
        for _, element in ET.iterparse(path):
            if element.tag != "SYNSET":
                continue
            pointers = [(p.text, p.findtext("TYPE")) for p in element.iter("SR")]
            yield _synset(
                uid=element.findtext("ID"),
                lemmas=[literal.text for literal in element.iter("LITERAL")],
                gloss=element.findtext("DEF"),
                pointers=[(target, kind in _XML_PARENTS) for target, kind in pointers],
            )
            element.clear()


def _read_wndb(paths: Iterable[Path]) -> Iterator[Synset]:
    """The lines of data.*: offset, file, type, words (number in hexadecimal), pointers, gloss."""
    for path in paths:
        for number, line in enumerate(read_lines(path), start=1):
            if line.startswith("  "):  # the licence, before the first synset
                continue
            try:
                yield _parse_wndb(line)
            except (ValueError, IndexError, TypeError) as error:
                raise DataError(
                    f"{path}:{number}: not a line of a WordNet data file ({error}). Fetch the source again."
                ) from error


def _parse_wndb(line: str) -> Synset:
    fields, bar, gloss = line.partition(" | ")
    if not bar:
        raise ValueError("no gloss")
    offset, _, pos, n_words, *rest = fields.split()
    words = rest[: 2 * int(n_words, 16) : 2]
    start = 2 * int(n_words, 16)
    n_pointers = whole_number(rest[start])
    pointers = rest[start + 1 : start + 1 + 4 * n_pointers]
    if len(pointers) != 4 * n_pointers:
        raise ValueError(f"{n_pointers} pointers announced, {len(pointers) / 4:g} found")
    return _synset(
        uid=f"ENG31-{offset}-{pos}",
        lemmas=[word.replace("_", " ") for word in words],
        # what follows the first semicolon are usage examples and remarks
        gloss=gloss.partition(";")[0],
        pointers=[
            (f"ENG31-{pointers[i + 1]}-{pointers[i + 2]}", pointers[i] in _WNDB_PARENTS)
            for i in range(0, len(pointers), 4)
        ],
    )


def _synset(
    uid: str | None,
    lemmas: list[str | None],
    gloss: str | None,
    pointers: list[tuple[str | None, bool]],
) -> Synset:
    words = [lemma for lemma in lemmas if lemma]
    targets = [(target, is_parent) for target, is_parent in pointers if target]
    whole = len(words) == len(lemmas) and len(targets) == len(pointers)
    if not uid or not gloss or not words or not whole:
        raise ValueError(f"synset {uid}: a word, gloss or pointer is missing")
    return Synset(
        uid=uid,
        lemmas=tuple(_POSITION_MARK.sub("", lemma).strip() for lemma in words),
        gloss=gloss.strip(),
        targets=tuple(target for target, _ in targets),
        parents=tuple(target for target, is_parent in targets if is_parent),
    )


def repair_pointers(synsets: Mapping[str, Synset]) -> dict[str, Synset]:
    """Pointers at satellite adjectives, written "-a", renamed to the ids that exist, "-s".

    Raises DataError when a pointer still leads nowhere.
    """

    def existing(target: str) -> str:
        if target in synsets:
            return target
        satellite = f"{target[:-1]}s"
        if target.endswith("-a") and satellite in synsets:
            return satellite
        raise DataError(f"a pointer leads to {target}, which is not a synset. Fetch again.")

    table = {
        uid: replace(
            synset,
            targets=tuple(sorted(set(map(existing, synset.targets)))),
            parents=tuple(sorted(set(map(existing, synset.parents)))),
        )
        for uid, synset in synsets.items()
    }
    repaired = sum(target not in synsets for s in synsets.values() for target in s.targets)
    log.info("%d synsets; %d pointers at satellite adjectives repaired", len(table), repaired)
    return table


def ancestors(synsets: Mapping[str, Synset], uid: str, levels: int | None = None) -> dict[str, int]:
    """Hypernym and instance-hypernym ancestors of `uid` and their (least) distance, up to `levels`."""
    distances: dict[str, int] = {}
    frontier, level = [uid], 0
    while frontier and level != levels:
        level += 1
        frontier = [
            parent
            for parent in dict.fromkeys(p for u in frontier for p in synsets[u].parents)
            if parent not in distances and parent != uid
        ]
        distances.update(dict.fromkeys(frontier, level))
    return distances


def count_descendants(synsets: Mapping[str, Synset]) -> Counter[str]:
    """How many different synsets lie below each, over both hypernym types."""
    return Counter(ancestor for uid in synsets for ancestor in ancestors(synsets, uid))


def subtree(synsets: Mapping[str, Synset], root: str) -> set[str]:
    """`root` and every synset below it; raises DataError when there is no such synset."""
    if root not in synsets:
        raise DataError(f"the root {root!r} is not a synset; correct it in datasets.yaml.")
    return {root, *(uid for uid in synsets if root in ancestors(synsets, uid))}


def labels_of(synsets: Mapping[str, Synset], uid: str, descendants: Mapping[str, int]) -> list[str]:
    """The labels of a document: pointer targets, and ancestors up to three levels that have at most
    1,000 descendants; never the synset itself."""
    near = ancestors(synsets, uid, ANCESTOR_LEVELS)
    specific = (a for a in near if descendants[a] <= MAX_DESCENDANTS)
    labels = dict.fromkeys((*synsets[uid].targets, *specific))
    labels.pop(uid, None)
    return list(labels)


def build_documents(
    synsets: Mapping[str, Synset], root: str | None = None
) -> dict[str, list[Document]]:
    """The documents of each split in the order of their uids; those without a label are dropped.

    With a `root`, only synsets in its subtree are documents or labels; descendants are counted over
    all of WordNet in any case.
    """
    descendants = count_descendants(synsets)
    inside: Iterable[str] = synsets if root is None else subtree(synsets, root)
    documents: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for uid in sorted(inside):
        labels = tuple(u for u in labels_of(synsets, uid, descendants) if u in inside)
        if labels:
            documents[split_of(uid)].append(Document(uid, synsets[uid].text, labels))
    return documents
