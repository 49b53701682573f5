"""The order of labels inside an output layer: head first, then the tail, group by group."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from haste.errors import ConfigError, DataError
from haste.files import read_npz, write_npz


def _no_cohesion() -> np.ndarray:
    return np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class LabelOrder:
    """Which label each internal row of an output layer stands for.

    Rows `[0, head)` are the dense head, most frequent first. Tail row `head + i` belongs to group
    `i // group_size`; every group has exactly `group_size` rows, only the last may be shorter.
    Making one checks all of this and raises DataError.
    """

    labels: np.ndarray
    """int32 [L]: internal row -> label id, a permutation"""
    head: int
    """rows of the dense head; 0: none"""
    group_size: int
    cohesion: np.ndarray = field(default_factory=_no_cohesion)
    """float32 [K]: mean cosine of each tail group's labels to the group's mean; [0]: not computed"""

    def __post_init__(self) -> None:
        n_labels = len(self.labels)
        if self.labels.ndim != 1 or n_labels == 0:
            raise DataError(
                f"label order: `labels` has shape {list(self.labels.shape)}, not [L] with L > 0."
            )
        if not np.issubdtype(self.labels.dtype, np.integer) or not np.array_equal(
            np.sort(self.labels), np.arange(n_labels)
        ):
            raise DataError(
                f"label order: `labels` is not a permutation of 0..{n_labels - 1}: "
                "each label must stand in exactly one row."
            )
        if not 0 <= self.head <= n_labels:
            raise DataError(
                f"label order: head is {self.head}; it must lie between 0 and the {n_labels} labels."
            )
        if self.group_size < 1:
            raise DataError(f"label order: group_size is {self.group_size}; it must be at least 1.")
        if self.cohesion.shape not in ((0,), (self.n_groups,)):
            raise DataError(
                f"label order: cohesion has shape {list(self.cohesion.shape)}; "
                f"expected one value for each of the {self.n_groups} tail groups, or none."
            )
        if not np.isfinite(self.cohesion).all():
            raise DataError("label order: cohesion has values that are not finite.")

    @classmethod
    def identity(cls, n_labels: int) -> LabelOrder:
        """Labels in their own order: no head, each label its own group."""
        return cls(np.arange(n_labels, dtype=np.int32), head=0, group_size=1)

    @property
    def n_labels(self) -> int:
        """L: labels in head and tail."""
        return len(self.labels)

    @property
    def n_tail(self) -> int:
        """Labels outside the head."""
        return self.n_labels - self.head

    @property
    def n_groups(self) -> int:
        """K: groups of the tail, the last one perhaps shorter."""
        return -(-self.n_tail // self.group_size)

    @cached_property
    def row_of_label(self) -> np.ndarray:
        """int32 [L]: label id -> internal row, the inverse of `labels`."""
        rows = np.empty(self.n_labels, np.int32)
        rows[self.labels] = np.arange(self.n_labels, dtype=np.int32)
        return rows

    @property
    def digest(self) -> str:
        """Of what a run takes of it. Cohesion is left out: its last digits are those of the embeddings, which
        differ from one kind of CPU to another."""
        labels = self.labels.astype("<i4", copy=False).tobytes()
        return hashlib.sha256(labels + f"{self.head} {self.group_size}".encode()).hexdigest()

    def clusters(self) -> np.ndarray:
        """int32 [L]: label id -> group; raises DataError when labels of the head have no group."""
        if self.head:
            raise DataError(
                f"label clusters: this order has a head of {self.head} labels that belong to no group; "
                "make it with head ratio 0 (haste group --order <grouping>-h0-...)."
            )
        return self.row_of_label // np.int32(self.group_size)

    def check_tail(self, where: str) -> None:
        """Raise ConfigError where all labels are in the head: there is no tail that could be sparse."""
        if not self.n_tail:
            raise ConfigError(
                f"{where}: the head takes all {self.n_labels} labels, as it has whole groups of "
                f"{self.group_size}, and leaves no tail. Lower layer.group_size or layer.head_ratio, or "
                "train a dense layer."
            )

    def save(self, path: Path | str) -> None:
        """Write as .npz, whole or not at all."""
        write_npz(
            path,
            labels=self.labels.astype(np.int32, copy=False),
            head=np.array(self.head, np.int32),
            group_size=np.array(self.group_size, np.int32),
            cohesion=self.cohesion.astype(np.float32, copy=False),
        )

    @classmethod
    def load(cls, path: Path | str) -> LabelOrder:
        """Read what `save` wrote; raises DataError naming the file when it is missing or wrong."""
        arrays = read_npz(path, "haste group")
        try:
            head, group_size = int(arrays["head"]), int(arrays["group_size"])
            return cls(arrays["labels"], head, group_size, arrays["cohesion"])
        except (DataError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: not a label order ({error}). Delete it and run haste group again."
            ) from error
