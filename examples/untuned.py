"""Data that no default was chosen on: P@1 without settings, tuned within minutes, of a dense layer and of omikuji.

`python examples/untuned.py terms functions`, or other names of `untuned_sets.py`, which says what is to be there
first. Each set takes a few minutes on a core for each seed, and those of `--minutes` for one search.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp
from untuned_sets import SETS

from haste import HasteClassifier
from haste.data.arrays import Documents, NamedLabels
from haste.data.linked import split_of
from haste.metrics.label_trees import LabelTrees


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
    uids: list[str],
    documents: list[str] | sp.csr_matrix,
    labels: list[list[str]],
    seeds: int,
    minutes: float,
) -> Iterator[tuple[str, str]]:
    """Documents and labels of training, then P@1 of each method on the test documents: mean, and of each seed."""
    test = np.array([split_of(uid) == "test" for uid in uids])
    parts = []
    for rows in (np.flatnonzero(~test), np.flatnonzero(test)):
        chosen = documents[rows] if sp.issparse(documents) else [documents[row] for row in rows]
        parts.append((chosen, [labels[row] for row in rows]))
    train, (unseen, truth) = parts
    yield "training documents", f"{len(train[1]):,}"
    yield "test documents", f"{len(truth):,}"
    yield "labels", f"{len({label for row in train[1] for label in row}):,}"

    def shown(found: Iterator[Sequence[str]]) -> str:
        scores = [precision(best, truth) for best in found]
        return f"{np.mean(scores):.1f} ({', '.join(f'{score:.1f}' for score in scores)})"

    # it cannot be seeded
    yield "omikuji", shown(trees(*train, unseen) for _ in range(seeds))
    for method in ("haste-plus", "dense"):
        models = (HasteClassifier(method, seed=seed, device="cpu") for seed in range(seeds))
        yield method, shown(model.fit(*train).predict(unseen, 1)[0][:, 0] for model in models)
    if minutes:
        model = HasteClassifier(device="cpu").tune(*train, minutes=minutes)
        tuned = precision(model.predict(unseen, 1)[0][:, 0], truth)
        yield f"haste-plus, tuned by {len(model.trials)} trials", f"{tuned:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0.0, help="of a search; 0 for none")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log = logging.getLogger("example")
    log.setLevel(logging.INFO)
    for name in arguments.sets:
        for what, number in measure(*SETS[name](), arguments.seeds, arguments.minutes):
            log.info("%s: %s %s", name, what, number)
