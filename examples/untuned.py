"""Data that no default was chosen on: P@1 without settings, tuned within minutes, of a dense layer and of omikuji.

First `haste fetch wordnet` and `haste fetch debian`; then `python examples/untuned.py persons names`. Each set takes
about 15 minutes on a core.
"""

import logging
import re
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from haste import HasteClassifier
from haste.data.arrays import Documents, NamedLabels
from haste.data.debian import read_packages
from haste.data.linked import split_of
from haste.data.wordnet import ancestors, count_descendants, read_synsets, subtree
from haste.metrics.label_trees import LabelTrees

MINUTES = 5.0
PERSON = "ENG31-00007846-n"
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
    words = [sorted(set(re.findall("[a-z]{2,}", package.name))) for package in chosen]
    counts = Counter(word for row in words for word in row)
    words = [[word for word in row if counts[word] >= 5] for row in words]
    chosen = [package for package, row in zip(chosen, words, strict=True) if row]
    columns = {name: at for at, name in enumerate(sorted({r for p in chosen for r in p.related}))}
    places = [[columns[name] for name in package.related] for package in chosen]
    bounds = np.cumsum([0, *map(len, places)])
    values = (np.ones(bounds[-1], np.float32), np.concatenate(places), bounds)
    features = sp.csr_matrix(values, shape=(len(chosen), len(columns)))
    return [package.source for package in chosen], features, [row for row in words if row]


def precision(found: Sequence[str], truth: list[list[str]]) -> float:
    """P@1 in percent of the best labels [N]."""
    return 100 * np.mean([label in own for label, own in zip(found, truth, strict=True)])


def trees(documents: Documents, labels: list[list[str]], unseen: Documents) -> list[str]:
    """The best label of each unseen document by omikuji."""
    named = NamedLabels.of(labels)
    rows, size = named.rows, len(named.names)
    values = (np.ones(len(rows.values)), rows.values, rows.offsets)
    model = LabelTrees(documents, sp.csr_matrix(values, shape=(len(rows), size)), threads=1)
    return [named.names[label] for label in model.predict(unseen, 1)[0][:, 0]]


def measure(
    uids: list[str], documents: list[str] | sp.csr_matrix, labels: list[list[str]]
) -> Iterator[tuple[str, str]]:
    """Documents and labels of training, then P@1 of each method on the test documents."""
    test = np.array([split_of(uid) == "test" for uid in uids])
    parts = []
    for rows in (np.flatnonzero(~test), np.flatnonzero(test)):
        chosen = documents[rows] if sp.issparse(documents) else [documents[row] for row in rows]
        parts.append((chosen, [labels[row] for row in rows]))
    train, (unseen, truth) = parts
    yield "training documents", f"{len(train[1]):,}"
    yield "labels", f"{len({label for row in train[1] for label in row}):,}"
    yield "omikuji", f"{precision(trees(*train, unseen), truth):.1f}"
    for method in ("haste-plus", "dense"):
        model = HasteClassifier(method, device="cpu").fit(*train)
        yield method, f"{precision(model.predict(unseen, 1)[0][:, 0], truth):.1f}"
    model = HasteClassifier(device="cpu").tune(*train, minutes=MINUTES)
    tuned = precision(model.predict(unseen, 1)[0][:, 0], truth)
    yield f"haste-plus, tuned by {len(model.trials)} trials", f"{tuned:.1f}"


SETS = {"persons": persons, "names": names}

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log = logging.getLogger("example")
    log.setLevel(logging.INFO)
    for name in sys.argv[1:] or SETS:
        for what, number in measure(*SETS[name]()):
            log.info("%s: %s %s", name, what, number)
