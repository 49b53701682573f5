"""Bilingual dictionaries as an extreme classification task: from a definition to the words that express it.

A document is a sense of an English headword, "headword: definition". Its labels are its translations into all
languages. The dictionaries are WikDict's, made from Wiktionary, as FreeDict gives them out. Senses of one headword,
which share translations, are in the same split.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haste.data.dictd import read_entries
from haste.data.linked import Document, Tick, split_of
from haste.errors import DataError
from haste.paths import SPLITS

LANGUAGES = ("bul", "cat", "fin", "ind", "jpn", "nor", "rus", "spa", "swe", "zho")
"""ISO 639-3; of each a package"""
STRESS = "\u0301"
"""the accent that shows how a Cyrillic word is stressed and is no part of it; elsewhere NFC has it in the letter"""

_SENSE_NUMBER = re.compile(r"\d+\. ")
# of the definitions of one sense the first comes after " 2." in the line of translations, others have lines
_SEVERAL = " 2."
_DEFINITION_NUMBER = re.compile(r" \d+\.")


@dataclass(frozen=True, order=True)
class Sense:
    """A definition of a headword; the same in every language's dictionary."""

    headword: str
    part_of_speech: str
    """n, v, adj; empty: not known"""
    definition: str

    @property
    def text(self) -> str:
        """The document."""
        return f"{self.headword}: {self.definition}"


def wikdict_files(raw: Path | str) -> list[Path]:
    """The dictionaries in a folder; raises DataError when one is not there."""
    paths = [Path(raw) / f"eng-{language}.deb" for language in LANGUAGES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{raw}: {', '.join(missing)} is missing. Run: haste fetch wikdict --out {raw}"
        )
    return paths


def read_senses(raw: Path | str, tick: Tick | None = None) -> dict[Sense, set[str]]:
    """All senses with a definition, sorted, and their translations, such as "fin:koira".

    Raises DataError when a dictionary is missing or damaged.
    """
    translations: dict[Sense, set[str]] = defaultdict(set)
    for language, path in zip(LANGUAGES, wikdict_files(raw), strict=True):
        for lines in read_entries(path):
            for sense, words in parse_entry(lines):
                translations[sense].update(f"{language}:{word}" for word in words)
                if tick:
                    tick(len(translations))
    return dict(sorted(translations.items()))


def build_documents(translations: Mapping[Sense, set[str]]) -> dict[str, list[Document]]:
    """The documents of each split by headword, in the order of the senses, which number their uids."""
    documents: dict[str, list[Document]] = {split: [] for split in SPLITS}
    numbers: dict[str, int] = defaultdict(int)
    for sense, words in translations.items():
        word = f"{sense.headword}/{sense.part_of_speech}"
        numbers[word] += 1
        uid = f"{word}/{numbers[word]}"
        documents[split_of(sense.headword)].append(Document(uid, sense.text, tuple(sorted(words))))
    return documents


def parse_entry(lines: Sequence[str]) -> Iterator[tuple[Sense, list[str]]]:
    """Each definition of an entry and its translations; senses without a definition are left out.

    After the headword's line, each sense has a line of translations, separated by commas, and its definitions.
    """
    headword, part_of_speech = _headline(lines[0])
    for first, *rest in _senses(lines[1:]):
        listed = first.removesuffix(_SEVERAL)
        words = [word for word in map(_word, listed.split(", ")) if word]
        for definition in _definitions(rest, several=first != listed):
            if words:
                yield Sense(headword, part_of_speech, definition), words


def _headline(line: str) -> tuple[str, str]:
    """Headword and part of speech of "dog /dɒɡ/ <n>"; one entry has no headword."""
    word, bracket, part_of_speech = line.rpartition(" <")
    if not bracket:
        word, part_of_speech = line, ""
    return word.partition(" /")[0], part_of_speech.removesuffix(">")


def _senses(lines: Sequence[str]) -> Iterator[list[str]]:
    """The lines of each sense; where there are several, they are numbered from "1. "."""
    if not lines or not lines[0].startswith("1. "):
        yield from ([list(lines)] if lines else [])
        return
    starts = [0]
    for position, line in enumerate(lines):
        if line.startswith(f"{len(starts) + 1}. "):
            starts.append(position)
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield [_SENSE_NUMBER.sub("", lines[start], count=1), *lines[start + 1 : end]]


def _definitions(lines: Sequence[str], *, several: bool) -> Iterator[str]:
    """On one line each."""
    definitions: list[list[str]] = [[]]
    for line in lines:
        if several and _DEFINITION_NUMBER.fullmatch(line):
            definitions.append([])
        else:
            definitions[-1].append(line)
    yield from filter(None, (" ".join(" ".join(part).split()) for part in definitions))


def _word(word: str) -> str:
    return unicodedata.normalize("NFC", word).replace(STRESS, "").strip()
