"""What a comparison was with fewer epochs: whether its order depends on how long is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from haste.errors import DataError
from haste.grid import RunKey
from haste.reporting.benchmarks import read_benchmark
from haste.reporting.table import Cell

NEEDED = ("dataset", "method", "variant", "seed", "epochs")
"""columns of a table `runs` that are read here, besides metrics"""


@dataclass(frozen=True)
class ShorterRuns:
    """The runs of a grid that differs from another in its epochs (`shorter:` in that one)."""

    path: Path
    rows: tuple[Mapping[str, Cell], ...]

    @classmethod
    def load(cls, path: Path) -> ShorterRuns:
        """From the csv of a table `runs`; raises DataError."""
        rows = read_benchmark(path)
        missing = [name for name in NEEDED if name not in rows[0]]
        if missing:
            raise DataError(
                f"{path}: no column {', '.join(missing)}. Make it with: haste table runs --grid ..."
            )
        return cls(path, tuple(rows))

    def metric(self, key: RunKey, metric: str, epochs: int) -> float | None:
        """Mean over seeds, in percent, of the runs of `key` (its seed does not matter) with fewer than
        `epochs` epochs; None where there are none."""
        wanted = (key.dataset, key.method, key.variant)
        found = [
            float(row[metric])
            for row in self.rows
            if (row["dataset"], row["method"], row["variant"]) == wanted
            and row["epochs"] is not None
            and float(row["epochs"]) < epochs
            and row.get(metric) is not None
        ]
        return float(np.mean(found)) if found else None

    def epochs(self) -> str:
        """How many they have: "20", or "10 to 20"."""
        found = sorted({int(row["epochs"]) for row in self.rows if row["epochs"] is not None})
        ends: Sequence[int] = sorted({found[0], found[-1]}) if found else ()
        return " to ".join(map(str, ends))
