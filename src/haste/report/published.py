"""Numbers of the papers, from published.csv beside this."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from haste.files import reading
from haste.report.render import GIB

HASTE = "HASTE (arXiv 2606.01117, ICML 2026)"
SECONDS_PER_EPOCH = ("epoch time",)
PEAK_MEMORY = ("peak GPU memory", "peak GPU memory (M_tr)")


@dataclass(frozen=True)
class Number:
    """One published number, in base units: percent, bytes, seconds, or a plain factor."""

    value: float | None
    """None where the paper gives a word: out of memory, "within a few percent\""""
    text: str
    """as printed in the paper"""

    def cell(self, unit: float = 1.0) -> float | str:
        """What a table shows: the value in a unit, or the word."""
        return self.text if self.value is None else self.value / unit


class Published:
    """All published numbers, looked up by paper, data set, method and metric."""

    def __init__(self, numbers: dict[tuple[str, str, str, str], Number]) -> None:
        """`numbers`: by (paper, data set as the paper spells it, method, metric)."""
        self._numbers = {
            (paper, dataset.casefold(), method, metric): number
            for (paper, dataset, method, metric), number in numbers.items()
        }
        self._datasets = {dataset.casefold(): dataset for _, dataset, _, _ in numbers}

    def find(
        self, paper: str, dataset: str, method: str, metrics: str | Iterable[str]
    ) -> Number | None:
        """The number, under the first of the metric's names that the paper uses; None if there is none.

        The data set's name is compared without regard to case: amazon-670k is Amazon-670K.
        """
        for metric in (metrics,) if isinstance(metrics, str) else metrics:
            number = self._numbers.get((paper, dataset.casefold(), method, metric))
            if number is not None:
                return number
        return None

    def datasets(self) -> list[str]:
        """The papers' data sets, as they spell them, in the order of the file."""
        return list(self._datasets.values())

    def methods(self) -> set[tuple[str, str]]:
        """(paper, method) pairs, as in `published_as` of presets/methods.yaml."""
        return {(paper, method) for paper, _, method, _ in self._numbers}


def load_published(path: Path | str) -> Published:
    """Read the table; raises DataError naming the file where it is damaged."""
    with (
        reading(path, "a table of published numbers"),
        Path(path).open(encoding="utf-8", newline="") as f,
    ):
        return Published(
            {
                (row["paper"], row["dataset"], row["method"], row["metric"]): Number(
                    _in_base_units(row["value"], row["unit"]), row["value"]
                )
                for row in csv.DictReader(f)
            }
        )


def _in_base_units(text: str, unit: str) -> float | None:
    if unit == "mm:ss":
        minutes, seconds = text.split(":")
        return 60.0 * float(minutes) + float(seconds)
    if text == "OOM" or not unit:
        return None
    return float(text) * (GIB if unit == "GiB" else 1.0)
