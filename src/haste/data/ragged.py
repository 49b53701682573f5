"""Rows of different length laid one after the other, and taking some of them out at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Row i is values[offsets[i] : offsets[i + 1]]; all arrays may be memory-mapped.

    `values` [T] of any dtype, `offsets` int64 [N + 1], `weights` float32 [T], what each value counts,
    or None where all count the same.
    """

    values: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray | None = None

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> Ragged:
        """From at least one row; all rows of the same dtype."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.concatenate(rows), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self) -> np.ndarray:
        """int64 [N]: how long each row is."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Ragged:
        """The given rows (int [B], any order, repeats allowed) as a new Ragged in memory."""
        starts = np.asarray(self.offsets[rows], dtype=np.int64)
        lengths = np.asarray(self.offsets[np.asarray(rows) + 1], dtype=np.int64) - starts
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        positions = np.repeat(starts - offsets[:-1], lengths)
        positions += np.arange(offsets[-1])
        weights = None if self.weights is None else np.asarray(self.weights[positions])
        return Ragged(np.asarray(self.values[positions]), offsets, weights)

    def followed_by(self, other: Ragged) -> Ragged:
        """All rows of this one and then those of `other`, in memory; neither has weights."""
        return Ragged(
            np.concatenate([self.values, other.values]),
            np.concatenate([self.offsets, other.offsets[1:] + self.offsets[-1]]),
        )
