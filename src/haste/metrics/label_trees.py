"""TF-IDF features (words and pairs of words), or given ones, and the label trees of omikuji, at their defaults.

omikuji is Parabel with hinge loss: three trees of balanced 2-means down to 100 labels a leaf, a
linear classifier for each node and label, a beam of 10 in prediction.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp

from haste.errors import DataError

Documents: TypeAlias = Sequence[str] | sp.csr_matrix


class LabelTrees:
    """A fitted model, in memory. It cannot be seeded: clustering and solver draw from the system.

    Args:
        documents: training texts [N], or sparse features, CSR [N, D].
        positives: CSR [N, L or more], their labels.
        threads: used in training and prediction.

    Raises:
        DataError: no training document has a word, or feature, and a label.
    """

    parameters = None
    """omikuji does not tell how many weights it kept"""

    def __init__(self, documents: Documents, positives: sp.csr_matrix, threads: int) -> None:
        import omikuji
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(ngram_range=(1, 2), dtype=np.float32)
        if sp.issparse(documents):
            features = documents
        else:
            try:
                features = self._vectorizer.fit_transform(documents)
            except ValueError as error:
                raise DataError(f"omikuji: the training texts have no words ({error}).") from error
        with tempfile.TemporaryDirectory(prefix="haste-") as folder:
            data = Path(folder) / "train.txt"
            _write_examples(data, features, positives)
            saved = Path(folder) / "model"
            with _kept_quiet(Path(folder) / "log.txt"):
                self._model = omikuji.Model.train_on_data(str(data), n_threads=threads)
                self._model.init_prediction_thread_pool(threads)
                self._model.save(str(saved))
            # as saved, since the library does not tell what the trees take in memory
            self.model_bytes = sum(file.stat().st_size for file in saved.iterdir())

    def predict(self, documents: Documents, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Label ids int32 [N, k] and scores float32 [N, k], best first (ties by id), -1 padded.

        `documents` are texts or features, as those of training were.
        """
        are_features = sp.issparse(documents)
        features: sp.csr_matrix = (
            documents if are_features else self._vectorizer.transform(documents)
        )
        ids = np.full((features.shape[0], k), -1, dtype=np.int32)
        scores = np.full((features.shape[0], k), -1.0, dtype=np.float32)
        for row in range(features.shape[0]):
            part = slice(features.indptr[row], features.indptr[row + 1])
            pairs = zip(features.indices[part].tolist(), features.data[part].tolist(), strict=True)
            ranked = sorted(
                self._model.predict(pairs, top_k=k), key=lambda pair: (-pair[1], pair[0])
            )
            for place, (label, score) in enumerate(ranked):
                ids[row, place], scores[row, place] = label, score
        return ids, scores


def _write_examples(path: Path, features: sp.csr_matrix, positives: sp.csr_matrix) -> None:
    """Write the data file of the Extreme Classification Repository, which omikuji reads.

    A header (documents, features, labels), then `label,label feature:value feature:value` a
    document. Documents without a feature or a label are left out; omikuji refuses them.
    """
    kept = np.flatnonzero((np.diff(features.indptr) > 0) & (np.diff(positives.indptr) > 0))
    if not kept.size:
        raise DataError("omikuji: no training document has a word, or feature, and a label.")
    features.sort_indices()
    with path.open("w", encoding="ascii") as stream:
        labels = int(positives.indices.max()) + 1
        stream.write(f"{kept.size} {features.shape[1]} {labels}\n")
        for row in kept:
            columns = positives.indices[positives.indptr[row] : positives.indptr[row + 1]]
            part = slice(features.indptr[row], features.indptr[row + 1])
            pairs = zip(features.indices[part], features.data[part], strict=True)
            words = " ".join(f"{column}:{value:.8g}" for column, value in pairs)
            stream.write(f"{','.join(map(str, columns))} {words}\n")


@contextlib.contextmanager
def _kept_quiet(log: Path) -> Iterator[None]:
    """Send what native code writes to standard output and error to a file; shown if the block fails.

    omikuji draws a progress bar for each document, in terminals and logs alike.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    originals = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        with log.open("wb") as stream:
            for descriptor in originals:
                os.dup2(stream.fileno(), descriptor)
            yield
    except Exception as error:
        error.add_note(log.read_text(encoding="utf-8", errors="replace")[-2000:])
        raise
    finally:
        for descriptor, original in originals.items():
            os.dup2(original, descriptor)
            os.close(original)
