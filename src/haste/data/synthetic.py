"""A generated data set: documents whose words follow from their labels, labels with Zipf's frequencies.

Label i stands beside label i + 1: neighbours share words and documents, so there are groups to find. A
document lies somewhere along the labels and has some of its neighbourhood and some from anywhere, the
frequent ones more often. Each label has a training document. Half of a document's words are its labels' own
words, which tells it apart, and half are words that any document has.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from haste.data.ragged import Ragged
from haste.data.readers.base import ROWS, SHORT, SPLITS, Block, default_uids
from haste.data.readers.lines import write_lines
from haste.errors import ConfigError, suggest
from haste.settings import Float, Int, SettingError, settings

Positive = Annotated[Int, Field(ge=1)]
NEAR = 0.1
"""share of a document's further labels that are from its neighbourhood"""
NEIGHBOURHOOD = 16
"""labels that share a word, and about how far neighbours lie"""
OWN_WORDS = 2
"""of a label, besides the one it shares"""
FLATTENED = 1000
"""the L / 1000 most frequent labels are about as frequent as each other"""
SIGNAL = 0.5
"""share of the words that are of a document's labels"""
COMMON_WORDS = 2000
TITLE_WORDS = 8
"""words of a document's title: its first"""
MOST_WORDS = 100_000
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u")]


@settings("synth")
class Plan:
    """What is generated, a function of these numbers alone."""

    documents: Positive
    """training documents, validation among them"""
    test_documents: Positive
    labels: Annotated[Int, Field(ge=2)]
    labels_per_document: Float = 5.0
    words: Positive = 50
    """of a document, on average"""
    seed: int = 0

    def __post_init__(self) -> None:
        least, most = max(1.0, self.labels / self.documents), self.labels / 2
        if not least <= self.labels_per_document <= max(most, least):
            text = (
                f"{self.labels_per_document:g} must lie between {least:.4g}, so that each of {self.labels} "
                f"labels has one of {self.documents} documents, and {most:g}"
            )
            raise SettingError("labels_per_document", text)

    @property
    def vocabulary(self) -> int:
        """Different words; the first COMMON_WORDS belong to no label."""
        return COMMON_WORDS + min(4 * self.labels, MOST_WORDS)

    def scaled(self, scale: float) -> Plan:
        """With `scale` times the documents and labels; labels a document stay, where so few allow it."""
        documents, tests, labels = (
            max(2, round(scale * n)) for n in (self.documents, self.test_documents, self.labels)
        )
        per_document = max(1.0, labels / documents, min(self.labels_per_document, labels / 2))
        return Plan(documents, tests, labels, per_document, self.words, self.seed)


LIKE = {
    "eurlex-4k": Plan(15_449, 3_865, 3_956, 5.30, 500),
    "wiki10-31k": Plan(14_146, 6_616, 30_938, 18.64, 500),
    "amazoncat-13k": Plan(1_186_239, 306_782, 13_330, 5.04, 100),
    "amazon-670k": Plan(490_449, 153_025, 670_091, 5.45, 100),
    "amazontitles-670k": Plan(485_176, 150_875, 670_091, 5.39, 8),
    "amazon-3m": Plan(1_717_899, 742_507, 2_812_281, 36.17, 100),
    "wiki-500k": Plan(1_779_881, 769_421, 501_070, 4.75, 500),
    "lf-amazontitles-131k": Plan(294_805, 134_835, 131_073, 2.29, 8),
    "lf-amazontitles-1.3m": Plan(2_248_619, 970_237, 1_305_265, 22.20, 8),
    "lf-wikiseealso-320k": Plan(693_082, 177_515, 312_330, 2.11, 100),
}
"""published numbers of documents and labels and of labels a document; how long documents are is rounded"""


def published(name: str) -> Plan:
    """The plan of a published data set; raises ConfigError with the nearest name."""
    if name not in LIKE:
        raise ConfigError(f"--like: {name!r} is not known.{suggest(name, LIKE)}")
    return LIKE[name]


def planned(*, like: str | None = None, scale: float = 1.0, **numbers: Any) -> Plan:
    """The plan that options of `haste synth` ask for: `numbers` are fields of Plan, and those that are None
    are not given.

    Raises ConfigError for a value that is not allowed, or too few of them.
    """
    numbers = {key: value for key, value in numbers.items() if value is not None}
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= 1000:
        raise ConfigError(f"--scale: {scale!r} is not allowed; give a number from 0 to 1000.")
    if like is not None:
        return replace(published(str(like)).scaled(scale), **numbers)
    if not {"documents", "labels"} <= numbers.keys():
        raise ConfigError("--documents and --labels are needed, or --like.")
    if scale != 1.0:
        raise ConfigError("--scale: means nothing without --like.")
    plan = Plan(**{"test_documents": 1, **numbers})
    return (
        plan
        if "test_documents" in numbers
        else replace(plan, test_documents=max(1, plan.documents // 4))
    )


def generate(plan: Plan, out: Path | str, tick: Callable[[int], None] | None = None) -> None:
    """Write the data set as JSON lines (trn.json.gz, tst.json.gz, lbl.json.gz) into the folder `out`.

    Raises ConfigError for a folder with files, which could be taken for part of the data set. `tick` is
    called with the number of documents written so far.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if present := next(folder.iterdir(), None):
        raise ConfigError(f"{folder}: holds {present.name} already. Give an empty folder.")
    words = _Words(plan)
    done = 0

    def documents(split: str) -> Iterator[str]:
        nonlocal done
        for block in sample_documents(plan, split, words):
            assert block.texts is not None  # only a layout of sparse features has none
            for uid, text, labels in zip(block.uids, block.texts, block.labels, strict=True):
                yield _json_line(uid, text, target_ind=labels.tolist())
            done += len(block)
            if tick:
                tick(done)

    for split in SPLITS:
        write_lines(folder / f"{SHORT[split]}.json.gz", documents(split))
    lines = (_json_line(str(label), text) for label, text in enumerate(words.of_labels()))
    write_lines(folder / "lbl.json.gz", lines)


def _json_line(uid: str, text: str, **more: Any) -> str:
    words = text.split(" ", TITLE_WORDS)
    title, content = " ".join(words[:TITLE_WORDS]), "".join(words[TITLE_WORDS:])
    return json.dumps({"uid": uid, "title": title, "content": content, **more})


def sample_documents(plan: Plan, split: str, words: _Words) -> Iterator[Block]:
    """The documents of `train` or `test`, with labels int32, each once and ascending."""
    documents = plan.documents if split == "train" else plan.test_documents
    for first in range(0, documents, ROWS):
        number = min(ROWS, documents - first)
        random = np.random.default_rng((plan.seed, SPLITS.index(split), first))
        labels = _sample_labels(plan, split, first, number, random)
        drawn = words.of_documents(labels, random)
        yield Block(default_uids(split, first, number), words.texts(drawn), labels)


def _sample_labels(
    plan: Plan, split: str, first: int, number: int, random: np.random.Generator
) -> Ragged:
    """Labels of the documents from `first` on."""
    n_labels = plan.labels
    documents = np.arange(first, first + number + 1)
    if split == "train":
        # every label in turn is given to one document, so that each has one
        bounds = documents * n_labels // plan.documents
        centres = bounds[:-1]
        guaranteed = np.diff(bounds)
    else:
        centres = random.integers(n_labels, size=number)
        guaranteed = np.zeros(number, dtype=np.int64)
    least = max(1.0, n_labels / plan.documents)
    sizes = (
        np.floor(least + random.random(number)).astype(np.int64) if split == "test" else guaranteed
    )
    sizes = np.maximum(sizes, 1) + random.poisson(plan.labels_per_document - least, size=number)
    sizes = np.maximum(np.minimum(sizes, n_labels // 2), guaranteed)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    row = np.repeat(np.arange(number), sizes)
    place = np.arange(offsets[-1]) - offsets[row]
    near = place == guaranteed[row]
    near |= random.random(len(row)) < NEAR
    steps = random.geometric(1 / NEIGHBOURHOOD, size=len(row)) - 1
    values = np.where(near, centres[row] + steps, _zipf(n_labels, random.random(len(row))))
    values = np.where(place < guaranteed[row], centres[row] + place, values) % n_labels
    return Ragged(_replace_repeats(values, row, n_labels, random).astype(np.int32), offsets)


def _replace_repeats(
    values: np.ndarray, row: np.ndarray, n_labels: int, random: np.random.Generator
) -> np.ndarray:
    """The labels sorted within each row, with those named again replaced by others."""
    keys = np.sort(row * n_labels + values)
    # at most half of all labels are in a row, so this ends soon
    while len(again := np.flatnonzero(keys[1:] == keys[:-1])):
        keys[again] += random.integers(n_labels, size=len(again)) - keys[again] % n_labels
        keys.sort()
    return keys % n_labels


def _zipf(n_labels: int, uniform: np.ndarray) -> np.ndarray:
    """Labels with frequency 1 / (rank + q), ranks scattered over the ids."""
    flat = max(2.0, n_labels / FLATTENED)
    ranks = (flat * ((n_labels + flat) / flat) ** uniform - flat).astype(np.int64)
    return np.minimum(ranks, n_labels - 1) * _coprime(n_labels) % n_labels


def _coprime(n: int) -> int:
    """A number that shares no divisor with `n`, at about its golden section."""
    candidate = max(1, int(n * 0.618))
    while math.gcd(candidate, n) != 1:
        candidate += 1
    return candidate


class _Words:
    """The vocabulary of a plan: which words a label has, and how they are written."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._written = [_spell(word) for word in range(plan.vocabulary)]
        ranks = np.arange(1, COMMON_WORDS + 1)
        self._common = np.cumsum(1 / ranks) / np.sum(1 / ranks)

    def of_label(self, labels: np.ndarray, which: np.ndarray) -> np.ndarray:
        """int64: word number `which` of each label; the last is shared by its neighbours."""
        shared = which == OWN_WORDS
        keys = np.where(shared, labels // NEIGHBOURHOOD, labels) * (OWN_WORDS + 1) + which
        return COMMON_WORDS + _scatter(keys) % (self._plan.vocabulary - COMMON_WORDS)

    def of_labels(self) -> Iterator[str]:
        """The text of each label: its words."""
        which = np.arange(OWN_WORDS + 1)
        for first in range(0, self._plan.labels, ROWS):
            labels = np.arange(first, min(first + ROWS, self._plan.labels))
            for words in self.of_label(labels[:, None], which).tolist():
                yield " ".join(self._written[word] for word in words)

    def of_documents(self, labels: Ragged, random: np.random.Generator) -> Ragged:
        """int64: the words of documents with these labels."""
        sizes = np.maximum(1, random.poisson(self._plan.words, size=len(labels)))
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        row = np.repeat(np.arange(len(sizes)), sizes)
        chosen = labels.offsets[row] + random.integers(labels.lengths()[row])
        signal = self.of_label(
            labels.values[chosen].astype(np.int64), random.integers(OWN_WORDS + 1, size=len(row))
        )
        common = np.searchsorted(self._common, random.random(len(row)))
        return Ragged(np.where(random.random(len(row)) < SIGNAL, signal, common), offsets)

    def texts(self, words: Ragged) -> list[str]:
        """Documents as text."""
        written = self._written
        ends = words.offsets.tolist()
        spelled = [written[word] for word in words.values.tolist()]
        return [" ".join(spelled[a:b]) for a, b in itertools.pairwise(ends)]


def _spell(word: int) -> str:
    """A word of two syllables or more, another for each number."""
    syllables: list[str] = []
    while word or len(syllables) < 2:
        word, syllable = divmod(word, len(SYLLABLES))
        syllables.append(SYLLABLES[syllable])
    return "".join(syllables)


def _scatter(keys: np.ndarray) -> np.ndarray:
    """Non-negative int64 that look unrelated for related keys, always the same for one."""
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(17)).astype(np.int64)
