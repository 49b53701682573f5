"""Random documents with the published averages of a data set, for benchmarks without data.

Tokens: their number is lognormal (sigma 0.5) around the average, cut to the encoder's length, ids uniform.
Labels: their number is Poisson around the average, ids by Zipf's law with exponent 1, flat for the L / 1000
most frequent, as in `haste.data.synthetic`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from haste.data.ragged import Ragged
from haste.data.synthetic import FLATTENED, LIKE
from haste.errors import ConfigError, suggest

TOKENS_PER_WORD = 1.3
"""word pieces per word of English text"""
SPECIAL_TOKENS = 2
LOG_STD = 0.5
"""standard deviation of the logarithm of a document's length"""
LEAST_LENGTH = 4
FIRST_ID = 1000
"""token ids below are special or unused in common vocabularies"""
_SCATTER = 2_654_435_761
"""a prime: its multiples modulo a smaller number n are all residues of n"""


@dataclass(frozen=True)
class PublishedStatistics:
    """Published statistics of the training documents of a data set."""

    documents: int
    labels: int
    labels_per_document: float
    words: float
    """per document, on average"""


STATISTICS = {
    **{
        name: PublishedStatistics(plan.documents, plan.labels, plan.labels_per_document, plan.words)
        for name, plan in LIKE.items()
    },
    # words: those of a paper's title and abstract, rounded
    "lf-paper2keywords-8.6m": PublishedStatistics(2_020_621, 8_623_847, 9.03, 150),
}


def statistics(dataset: str) -> PublishedStatistics:
    """Published statistics of a data set; raises ConfigError with the nearest name."""
    name = dataset.casefold()
    if name not in STATISTICS:
        raise ConfigError(
            f"{dataset}: its numbers of documents, labels and words are not known.{suggest(name, STATISTICS)}"
        )
    return STATISTICS[name]


def draw_tokens(
    about: PublishedStatistics, n: int, max_len: int, vocabulary: int, random: np.random.Generator
) -> Ragged:
    """Token ids int32 of `n` documents, at most `max_len` each, from ids below `vocabulary`."""
    mean = np.log(TOKENS_PER_WORD * about.words) - LOG_STD**2 / 2
    lengths = SPECIAL_TOKENS + random.lognormal(mean, LOG_STD, n).round().astype(np.int64)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(lengths.clip(LEAST_LENGTH, max_len), out=offsets[1:])
    first = min(FIRST_ID, vocabulary // 2)
    return Ragged(random.integers(first, vocabulary, offsets[-1], dtype=np.int32), offsets)


def draw_labels(
    about: PublishedStatistics, n: int, head: int, random: np.random.Generator
) -> sp.csr_matrix:
    """CSR fp32 [n, L] of ones: positives of `n` documents, by row of an output layer.

    The `head` most frequent labels are its first rows, as in `haste.labels.order`; the others are in no
    order of frequency, as in semantic groups.
    """
    counts = 1 + random.poisson(max(about.labels_per_document - 1, 0), n)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    flat = max(about.labels / FLATTENED, 1)
    continuous = flat * ((1 + about.labels / flat) ** random.random(offsets[-1]) - 1)
    labels = continuous.astype(np.int64).clip(max=about.labels - 1)
    tail = about.labels - head
    if tail:
        scattered = head + (labels - head) * _SCATTER % tail
        labels = np.where(labels < head, labels, scattered)
    ones = np.ones(len(labels), np.float32)
    return sp.csr_matrix((ones, labels.astype(np.int32), offsets), (n, about.labels))
