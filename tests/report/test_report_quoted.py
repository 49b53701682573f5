"""Intervals in README.md and FINDINGS.md are those of the committed tables, rounded once."""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GRIDS = {
    "Accuracy, on WordNet-104K": ("wordnet-tuned",),
    "Accuracy, on WordNet-104K with 768 features": ("wordnet-768",),
    "Accuracy, on wikdict": ("wikdict",),
    "Accuracy, on Debian's package relations": ("debian",),
    "Accuracy, on wordnet-mini": (
        "mini",
        "mini-seeds",
        "mini-rewiring",
        "mini-formats",
        "mini-768",
    ),
}
"""grids whose tables a section of FINDINGS.md quotes; README.md quotes any of them"""
QUOTE = re.compile(r"([+-]?\d+(?:\.\d+)?) \[(-?\d+(?:\.\d+)?), (-?\d+(?:\.\d+)?)\]")
METRIC = re.compile(r"\b(?:PSP|P|R)@\d+")


@dataclass(frozen=True)
class Quote:
    paragraph: str
    text: str
    grids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.paragraph[:30]}: {self.text}"


@dataclass(frozen=True)
class Row:
    grid: str
    metric: str
    names: tuple[str, ...]  # words for what is compared that a paragraph must have
    values: tuple[float, float, float]  # estimate, low, high

    def quoted_as(self, text: str) -> bool:
        """Whether the text is this row, or the same difference the other way around."""
        estimate, low, high = self.values
        digits = len(text.split(" ")[0].partition(".")[2])
        numbers = [float(number) for number in QUOTE.fullmatch(text).groups()]
        return any(
            [float(f"{value:.{digits}f}") for value in values] == numbers
            for values in ((estimate, low, high), (-estimate, -high, -low))
        )

    def named_in(self, paragraph: str) -> bool:
        return self.metric in METRIC.findall(paragraph) and all(
            name in paragraph.lower() for name in self.names
        )


def quotes(path: Path) -> list[Quote]:
    """Every interval of a text, with the line that it stands in."""
    grids = tuple(sorted({grid for section in GRIDS.values() for grid in section}))
    result = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            grids = GRIDS.get(line[3:], grids)
        result += [Quote(line, match[0], grids) for match in QUOTE.finditer(line)]
    return result


def first_words(compared: str) -> tuple[str, ...]:
    """`HASTE − Fixed fan-in + head (points)` -> (fixed,).

    HASTE and the dense layer are left out: paragraphs often mean them without naming them.
    """
    sides = (side.strip().lower().removeprefix("g=") for side in compared.split("−"))
    words = (re.split(r"[ +(-]", side)[0] for side in sides)
    return tuple(word for word in words if word not in ("haste", "dense", "with"))


@cache
def rows() -> tuple[Row, ...]:
    result = []
    for path in sorted(ROOT.glob("results/*/tables/*.csv")):
        grid = path.parent.parent.name
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                estimate = "ours" if path.stem == "claims" else "difference"
                values = [row.get(f"{estimate}{end}") for end in ("", " low", " high")]
                if not all(values):
                    continue
                metric, names = "P@1", ()
                if path.stem == "claims":
                    metric, _, compared = row["comparison"].partition(", ")
                    names = first_words(compared)
                    metric = METRIC.match(metric)[0]
                result.append(Row(grid, metric, names, tuple(map(float, values))))
    return tuple(result)


QUOTES = [quote for name in ("README.md", "results/FINDINGS.md") for quote in quotes(ROOT / name)]


@pytest.mark.parametrize("quote", QUOTES, ids=str)
def test_an_interval_is_that_of_a_committed_table(quote):
    assert any(
        row.grid in quote.grids and row.named_in(quote.paragraph) and row.quoted_as(quote.text)
        for row in rows()
    )
