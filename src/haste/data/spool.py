"""Rows of different length that are collected on disk, so that memory does not grow with them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from haste.data.ragged import Ragged
from haste.files import naming_target


class RaggedSpool:
    """A Ragged that grows block by block; its values lie in an unnamed file in `folder`.

    The file goes when nothing uses it any more, whatever happens.
    """

    def __init__(self, dtype: DTypeLike, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._lengths: list[np.ndarray] = []

    def append(self, values: np.ndarray, offsets: np.ndarray) -> None:
        """Add rows, laid out as those of a Ragged."""
        with naming_target(self._folder):
            self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self._lengths.append(np.diff(offsets))

    def ragged(self) -> Ragged:
        """All rows; values memory-mapped, of the given dtype."""
        offsets = np.zeros(1 + sum(map(len, self._lengths)), dtype=np.int64)
        if len(offsets) > 1:
            np.cumsum(np.concatenate(self._lengths), out=offsets[1:])
        with naming_target(self._folder):
            self._file.flush()
        if not offsets[-1]:  # nothing cannot be mapped
            return Ragged(np.zeros(0, self._dtype), offsets)
        values = np.memmap(self._file, self._dtype, mode="r", shape=(int(offsets[-1]),))
        return Ragged(values, offsets)
