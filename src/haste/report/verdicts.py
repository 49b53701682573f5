"""Verdicts over data sets: each claim with where it holds, where it does not, and what that comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from haste.errors import DataError
from haste.files import reading
from haste.report.claims import FAILS, HOLDS, UNDECIDED, claims
from haste.report.render import Column, Table

NEEDED = ("claim", "place", "text", "verdict")
MIXED = "holds on some"
TITLE = "Verdicts over data sets"
COLUMNS = (
    Column("claim", "Claim"),
    Column("text", "What the paper says", width=5),
    Column("holds", "Holds on", width=4),
    Column("fails", "Does not hold on", width=4),
    Column("open", "Cannot be decided on", width=4),
    Column("overall", "Overall"),
)
NOTES = (
    "Accuracy is named by its grid, times and memory by the shape of a data set or the device.",
    f"Overall: {HOLDS} or {FAILS} where every place with a verdict says so; {MIXED} where they differ.",
    "A place where a claim cannot be decided changes nothing; the table of claims of its grid says why.",
)


def verdicts_table(tables: Sequence[Path]) -> Table:
    """A row a claim, of tables of claims (claims.csv) of several grids.

    A grid is called as the folder of its results. Places that several grids show, such as devices of
    benchmarks, count once.

    Raises:
        DataError: a table is missing, is none of claims or has one that is unknown; or two give the same
            place other verdicts.
    """
    found: dict[str, dict[str, str]] = {}
    texts: dict[str, str] = {}
    known_claims = {claim.id: claim for claim in claims()}
    for path in tables:
        for row in _rows(path):
            claim, where = row["claim"], row["place"]
            if claim not in known_claims:
                raise DataError(
                    f"{path}: there is no claim {claim}. Make the table of claims anew."
                )
            if known_claims[claim].evidence == "accuracy":
                where = Path(path).resolve().parents[1].name
            texts[claim] = row["text"]
            known = found.setdefault(claim, {}).setdefault(where, row["verdict"])
            if known != row["verdict"]:
                raise DataError(
                    f"{path}: {claim} {row['verdict']} on {where}, where another table says: {known}. Make "
                    "the tables of claims anew."
                )
    rows = [
        {
            "claim": claim,
            "text": texts[claim],
            **{
                key: _places(found[claim], verdict)
                for key, verdict in (("holds", HOLDS), ("fails", FAILS), ("open", UNDECIDED))
            },
            "overall": overall(found[claim].values()),
        }
        for claim in known_claims
        if claim in found
    ]
    return Table.of(COLUMNS, rows, NOTES)


def overall(verdicts: Iterable[str]) -> str:
    """What the verdicts of several places come to."""
    decided = set(verdicts) - {UNDECIDED}
    if not decided:
        return UNDECIDED
    return decided.pop() if len(decided) == 1 else MIXED


def _places(verdicts: Mapping[str, str], verdict: str) -> str | None:
    return "; ".join(place for place, its in verdicts.items() if its == verdict) or None


def _rows(path: Path) -> list[dict[str, str]]:
    import pandas as pd

    with reading(path, "a table of claims", "haste table claims"):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        return frame[list(NEEDED)].drop_duplicates().to_dict("records")
