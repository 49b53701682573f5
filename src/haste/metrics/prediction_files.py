"""Predictions and truth of any tool, from their files: matrices, or tables of documents and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.data.corpus import load_corpus
from haste.data.registry import PROPENSITY
from haste.errors import ConfigError, DataError
from haste.files import read_csr, reading
from haste.labels.frequency import count_labels
from haste.metrics.matching import binary
from haste.metrics.metrics import MAX_RANK, evaluate
from haste.metrics.names import is_propensity_scored
from haste.metrics.propensity import inverse_propensity
from haste.paths import CorpusDir


@dataclass(frozen=True)
class Pairs:
    """(document, label, score), one row a pair, as a file names them."""

    documents: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    n_documents: int | None = None
    """where the file says how many there are"""


def read_pairs(path: Path) -> Pairs:
    """From .npz, .csv or .parquet; raises DataError for another file or one without what is needed.

    .npz: a CSR matrix [N, L] of scores (scipy), or ids [N, k] and scores [N, k], -1 for no label. Tables:
    columns document, label and, for predictions, score; or a row a document with lists `labels` and `scores`.
    """
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix not in (".csv", ".parquet"):
        raise DataError(f"{path}: expected a file that ends in .npz, .csv or .parquet.")
    from pyarrow import csv, parquet

    with reading(path, f"a table ({path.suffix})"):
        # read_table would import pandas
        read = csv.read_csv if path.suffix == ".csv" else lambda p: parquet.ParquetFile(p).read()
        table = read(path).to_pydict()
        if "labels" in table:
            return _of_lists(table)
        missing = [name for name in ("document", "label") if name not in table]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}; columns are {', '.join(table)}")
        documents, labels = (_names(table[name], name) for name in ("document", "label"))
        return Pairs(documents, labels, np.array(table.get("score", np.ones(len(labels))), float))


def evaluate_files(
    predictions: Path,
    truth: Path,
    training: Path | None = None,
    propensity: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """As metrics.json, of predictions and truth whose documents and labels have the same names or numbers.

    A document without a prediction counts with none.

    Args:
        predictions: a file that `read_pairs` reads, with scores.
        truth: the labels of the same documents.
        training: labels of the training documents, for propensities; without it PSP and PSnDCG are left out.
        propensity: A and B of the propensity model; None for those of the corpus in whose folder `training`
            lies, or for the defaults where it lies in none.

    Raises:
        ConfigError: a propensity without training documents, or one that is not positive.
        DataError: files that do not fit.
    """
    if propensity and not training:
        raise ConfigError(
            "propensity: A and B are of training documents, which are missing; name the file of their labels "
            "(--training)."
        )
    predicted, wanted = read_pairs(predictions), read_pairs(truth)
    trained = read_pairs(training) if training else None
    for name, other in ((predictions, predicted), (training, trained)):
        if other and _are_texts(other.labels) != _are_texts(wanted.labels) and len(other.labels):
            raise DataError(
                f"{name}: labels are names here and numbers in {truth}, or the reverse; give both in one form."
            )
    documents = _numbering(wanted.documents, wanted.n_documents)
    labels = _numbering(np.concatenate([p.labels for p in (trained, wanted, predicted) if p]), None)
    matrix = _matrix(wanted, documents, labels, truth)
    ids, scores = _ranked(predicted, documents, labels, predictions)
    counts, weights = np.zeros(len(labels), np.int64), np.ones(len(labels))
    if training and trained:
        trained_documents = _numbering(trained.documents, trained.n_documents)
        counts = count_labels(_matrix(trained, trained_documents, labels, training))
        number = len(trained_documents)
        weights = inverse_propensity(counts, number, *(propensity or _propensity_beside(training)))
    result = evaluate(ids, scores, matrix, weights, counts)
    if not trained:
        kept = result["metrics"].items()
        result["metrics"] = {k: v for k, v in kept if not is_propensity_scored(k)}
    return result


def _propensity_beside(training: Path) -> tuple[float, float]:
    """A and B of the corpus whose file `training` is; the defaults where it is of none."""
    directory = CorpusDir(training.parent)
    if not directory.info.is_file():
        return PROPENSITY
    info = load_corpus(directory).info
    return info.propensity_a, info.propensity_b


def _read_npz(path: Path) -> Pairs:
    with reading(path, "an .npz file"), np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in ("ids", "scores") if name in archive.files}
    if len(arrays) < 2:
        matrix = read_csr(path)
        matrix.eliminate_zeros()
        coo = matrix.tocoo()
        return Pairs(coo.row, coo.col, coo.data, matrix.shape[0])
    ids, scores = arrays["ids"], arrays["scores"]
    if ids.ndim != 2 or ids.shape != scores.shape:
        raise DataError(
            f"{path}: ids {list(ids.shape)} and scores {list(scores.shape)} do not fit."
        )
    rows, columns = np.nonzero(ids >= 0)
    return Pairs(rows, ids[rows, columns], scores[rows, columns], len(ids))


def _of_lists(table: Mapping[str, list]) -> Pairs:
    lengths = [len(row) for row in table["labels"]]
    labels = [label for row in table["labels"] for label in row]
    scores = [score for row in table["scores"] for score in row] if "scores" in table else labels
    if len(scores) != len(labels):
        raise ValueError("lists of labels and scores differ in length")
    values = np.array(scores, float) if "scores" in table else np.ones(len(labels))
    documents = np.repeat(np.arange(len(lengths)), lengths)
    return Pairs(documents, _names(labels, "labels"), values, len(lengths))


def _names(values: list, column: str) -> np.ndarray:
    if None in values:
        raise ValueError(f"a cell of the column {column} is empty")
    return np.array(values)


def _are_texts(names: np.ndarray) -> bool:
    return names.dtype.kind == "U"


def _numbering(names: np.ndarray, number: int | None) -> Mapping[Any, int]:
    known = range(number) if number is not None else sorted(set(names.tolist()), key=str)
    return {name: place for place, name in enumerate(known)}


def _places(names: np.ndarray, numbering: Mapping[Any, int], path: Path) -> np.ndarray:
    try:
        return np.array([numbering[name] for name in names.tolist()], np.int64)
    except KeyError as error:
        raise DataError(f"{path}: {error} is no document or label of the truth.") from None


def _matrix(
    pairs: Pairs, documents: Mapping[Any, int], labels: Mapping[Any, int], path: Path
) -> sp.csr_matrix:
    """float64 [N, L] of ones; a label that a document has twice counts once."""
    places = _places(pairs.documents, documents, path), _places(pairs.labels, labels, path)
    shape = (len(documents), len(labels))
    return binary(sp.csr_matrix((np.ones(len(places[0])), places), shape))


def _ranked(
    predicted: Pairs, documents: Mapping[Any, int], labels: Mapping[Any, int], path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """ids int64 and scores float64 [N, 100], best first."""
    rows = _places(predicted.documents, documents, path)
    order = np.lexsort((-predicted.scores, rows))
    rows, columns = rows[order], _places(predicted.labels, labels, path)[order]
    starts = np.searchsorted(rows, np.arange(len(documents)))
    ranks = np.arange(len(rows)) - starts[rows]
    kept = ranks < MAX_RANK
    ids = np.full((len(documents), MAX_RANK), -1, np.int64)
    scores = np.full(ids.shape, -np.inf)
    ids[rows[kept], ranks[kept]] = columns[kept]
    scores[rows[kept], ranks[kept]] = predicted.scores[order][kept]
    return ids, scores
