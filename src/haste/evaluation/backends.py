"""The two metric libraries behind one face: xclib where it is installed, napkinxc otherwise.

Both follow the definitions of the Extreme Classification Repository (whose tool xclib is):

* P@k, mean over all documents of hits / k. A document without positives counts as 0, here and below.
* nDCG@k, DCG over that of min(k, positives) hits at the top, mean over documents.
* PSP@k and PSnDCG@k, hits weighted by inverse propensity; the mean over documents is divided by the
  mean that the best possible ranking reaches (a ratio of means, not a mean of ratios). PSnDCG
  divides each document by the DCG of min(k, positives) hits, as both libraries do.
* R@k, hits / positives, mean over documents. (`recall_at_k` of xclib leaves out documents without
  positives; its `recall`, used here, and napkinxc count them as 0.)

Given the same clean input they agree to float32 rounding, in which xclib keeps nDCG. The input is
where they differ, so it is made here, from ids in order, never from score matrices: those are sorted
unstably (ties) by both, and an int matrix is taken for scores by napkinxc; -1 would be the last
label to numpy; napkinxc drops from the ideal the labels that its propensities do not reach, and
stops silently at the shorter of truth and predictions (both are checked before).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from typing import ClassVar, Protocol

import numpy as np
import scipy.sparse as sp

BLOCK = 50_000
"""documents napkinxc sees at once: it wants Python lists, some 4 KB a document at k = 100"""


class Backend(Protocol):
    """A metric library."""

    name: str
    """with its version, as metrics.json says it"""

    def curve(
        self,
        metric: str,
        ids: np.ndarray,
        truth: sp.csr_matrix,
        k: int,
        inverse_propensity: np.ndarray,
    ) -> np.ndarray:
        """A metric (P, PSP, nDCG, PSnDCG or R) at 1..k, float64 [k], as shares of 1.

        Args:
            metric: its name, without rank.
            ids: int [N, at least k], best first, -1 where there are fewer.
            truth: canonical CSR [N, L + E] of ones with at least one positive.
            k: the last rank.
            inverse_propensity: float64 [L + E]; used by PSP and PSnDCG.
        """


def choose_backend() -> Backend:
    """xclib where it is installed, napkinxc otherwise."""
    return XclibBackend() if xclib_installed() else NapkinxcBackend()


def xclib_installed() -> bool:
    """Whether xclib can be imported."""
    return importlib.util.find_spec("xclib") is not None


class XclibBackend:
    """xclib.evaluation.xc_metrics (pyxclib)."""

    FUNCTIONS: ClassVar = {
        "P": "precision",
        "PSP": "psprecision",
        "nDCG": "ndcg",
        "PSnDCG": "psndcg",
        "R": "recall",
    }

    def __init__(self) -> None:
        from xclib.evaluation import xc_metrics

        self._library = xc_metrics
        self.name = f"xclib {importlib.metadata.version('xclib')}"

    def curve(
        self,
        metric: str,
        ids: np.ndarray,
        truth: sp.csr_matrix,
        k: int,
        inverse_propensity: np.ndarray,
    ) -> np.ndarray:
        """As `Backend.curve`."""
        function = getattr(self._library, self.FUNCTIONS[metric])
        weights = [inverse_propensity] if metric.startswith("PS") else []
        # xclib gives the truth one more, empty column, which is its padding
        padded = np.where(ids[:, :k] < 0, truth.shape[1], ids[:, :k])
        return np.asarray(function(padded, truth, *weights, k=k, sorted=True), dtype=np.float64)


class NapkinxcBackend:
    """napkinxc.metrics."""

    CLASSES: ClassVar = {
        "P": "PrecisionAtK",
        "PSP": "PSPrecisionAtK",
        "nDCG": "NDCGAtK",
        "PSnDCG": "PSNDCGAtK",
        "R": "RecallAtK",
    }

    def __init__(self) -> None:
        from napkinxc import metrics

        self._library = metrics
        self.name = f"napkinxc {importlib.metadata.version('napkinxc')}"

    def curve(
        self,
        metric: str,
        ids: np.ndarray,
        truth: sp.csr_matrix,
        k: int,
        inverse_propensity: np.ndarray,
    ) -> np.ndarray:
        """As `Backend.curve`."""
        weights = [inverse_propensity] if metric.startswith("PS") else []
        total = getattr(self._library, self.CLASSES[metric])(*weights, k=k)
        for start in range(0, ids.shape[0], BLOCK):
            block = slice(start, start + BLOCK)
            total.accumulate(list(_positives(truth[block])), list(_ranked(ids[block, :k])))
        return np.asarray(total.summarize(), dtype=np.float64)


def _positives(truth: sp.csr_matrix) -> Iterator[list[int]]:
    for start, end in zip(truth.indptr[:-1], truth.indptr[1:], strict=True):
        yield truth.indices[start:end].tolist()


def _ranked(ids: np.ndarray) -> Iterator[list[int]]:
    for row in ids:
        yield row[row >= 0].tolist()
