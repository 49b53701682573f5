"""Rows of different length laid one after the other: taking some of them out, collecting them on disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import DTypeLike

from haste.files import atomic, naming_target


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
        """From rows of one dtype; without any, it is int64."""
        values = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        return cls(values, offsets_of([len(row) for row in rows]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.__getitem__, range(len(self)))

    def lengths(self) -> np.ndarray:
        """int64 [N]: how long each row is."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Ragged:
        """The given rows (int [B], any order, repeats allowed) as a new Ragged in memory."""
        starts = np.asarray(self.offsets[rows], dtype=np.int64)
        lengths = np.asarray(self.offsets[np.asarray(rows) + 1], dtype=np.int64) - starts
        offsets = offsets_of(lengths)
        positions = np.repeat(starts - offsets[:-1], lengths)
        positions += np.arange(offsets[-1])
        weights = None if self.weights is None else np.asarray(self.weights[positions])
        return Ragged(np.asarray(self.values[positions]), offsets, weights)


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """int64 [N + 1] of rows of these lengths."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


class RaggedWriter:
    """A Ragged that grows block by block; its values go to a file (.npy), so memory does not grow with them."""

    def __init__(self, file: BinaryIO, dtype: DTypeLike, target: Path | str) -> None:
        """`target`: what an error names when the disk is full."""
        self._file = file
        self._dtype = np.dtype(dtype)
        self._target = target
        self._lengths = [np.zeros(0, np.int64)]
        with naming_target(target):
            self._write_header(0)
        self._header_size = file.tell()

    @classmethod
    def temporary(cls, folder: Path, dtype: DTypeLike) -> Self:
        """With an unnamed file in `folder`, which goes when nothing uses it any more."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(tempfile.TemporaryFile(dir=folder), dtype, folder)

    @classmethod
    @contextlib.contextmanager
    def saved(cls, path: Path | str, dtype: DTypeLike) -> Iterator[Self]:
        """When the context ends without an error, `path` is byte for byte what np.save writes of all
        values; else it is left as it was."""
        with atomic(path) as temporary, temporary.open("wb") as file:
            writer = cls(file, dtype, path)
            yield writer
            file.seek(0)
            # numpy leaves room in the header for a length of any number of digits
            writer._write_header(int(writer.offsets()[-1]))

    def append(self, values: np.ndarray, lengths: Sequence[int] | np.ndarray) -> None:
        """Add rows of these lengths, their values one after the other."""
        with naming_target(self._target):
            self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._lengths.append(np.asarray(lengths, np.int64))

    def offsets(self) -> np.ndarray:
        """int64 [N + 1] of the rows so far."""
        return offsets_of(np.concatenate(self._lengths))

    def ragged(self) -> Ragged:
        """All rows so far; values memory-mapped."""
        offsets = self.offsets()
        with naming_target(self._target):
            self._file.flush()
        if not offsets[-1]:  # nothing cannot be mapped
            return Ragged(np.zeros(0, self._dtype), offsets)
        shape, start = (int(offsets[-1]),), self._header_size
        return Ragged(np.memmap(self._file, self._dtype, "r", start, shape), offsets)

    def _write_header(self, length: int) -> None:
        description = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (length,),
        }
        np.lib.format.write_array_header_1_0(self._file, description)
