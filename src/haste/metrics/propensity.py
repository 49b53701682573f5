"""Propensities: how likely a positive is to be recorded, rare labels being missed more often."""

from __future__ import annotations

import numpy as np

from haste.errors import ConfigError, DataError

MIN_DOCUMENTS = 3


def inverse_propensity(counts: np.ndarray, n_documents: int, a: float, b: float) -> np.ndarray:
    """1 / p_l of each label, by the model of Jain, Prabhu and Varma (KDD 2016).

    1 / p_l = 1 + C (n_l + B)^-A with C = (ln N - 1)(B + 1)^A, where n_l of the N training documents
    have label l. A label no training document has (an extra column of the truth) has the largest
    value, that of n_l = 0.

    Args:
        counts: int64 [L + E], training documents of each label; 0 is allowed.
        n_documents: N.
        a: A, of corpus.json.
        b: B, of corpus.json.

    Returns:
        float64 [L + E], at least 1.

    Raises:
        ConfigError: A or B is not positive, or not finite.
        DataError: N is below 3 (ln N < 1 makes C negative) or a count is not within 0..N.
    """
    if not (0 < a < np.inf and 0 < b < np.inf):
        raise ConfigError(
            f"propensity: A = {a}, B = {b}; both must be finite and above 0. Correct the data set's propensity_a and "
            "propensity_b, or --propensity."
        )
    if n_documents < MIN_DOCUMENTS:
        raise DataError(
            f"propensity: {n_documents} training documents; the model needs at least {MIN_DOCUMENTS}."
        )
    counts = np.asarray(counts)
    if counts.size and (counts.min() < 0 or counts.max() > n_documents):
        raise DataError(
            f"propensity: label counts run from {counts.min()} to {counts.max()}, "
            f"but there are {n_documents} training documents. Count the training split."
        )
    c = (np.log(n_documents) - 1.0) * (b + 1.0) ** a
    return 1.0 + c * (counts.astype(np.float64) + b) ** -a
