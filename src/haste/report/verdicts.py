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
    "Accuracy is of a data set and a device, times and memory of the shape of a data set or a device.",
    f"Overall: {HOLDS} or {FAILS} where every place with a verdict says so; {MIXED} where they differ.",
    "A place where a claim cannot be decided changes nothing; the table of claims of its grid says why.",
)


def verdicts_table(tables: Sequence[Path]) -> Table:
    """A row a claim, of tables of claims (claims.csv) of several grids.

    A grid is called as the folder of its results, with the folders above where others have its name. It is
    named beside a place on which another grid has another verdict, and beside those of a data set that several
    grids have on devices of their own; where grids agree on a place, as on devices of benchmarks, it counts
    once.

    Raises:
        DataError: a table is missing, is none of claims or has one that is unknown.
    """
    by_claim: dict[str, dict[str, dict[str, str]]] = {}
    texts: dict[str, str] = {}
    order = [claim.id for claim in claims()]
    folders = [Path(path).resolve().parents[1] for path in tables]
    for path, folder in zip(tables, folders, strict=True):
        grid = _grid_name(folder, folders)
        for row in _rows(path):
            claim = row["claim"]
            if claim not in order:
                raise DataError(
                    f"{path}: there is no claim {claim}. Make the table of claims anew."
                )
            texts[claim] = row["text"]
            by_claim.setdefault(claim, {}).setdefault(row["place"], {})[grid] = row["verdict"]
    verdicts = {claim: _by_place(places) for claim, places in by_claim.items()}
    rows = [
        {
            "claim": claim,
            "text": texts[claim],
            **{
                key: _places(verdicts[claim], verdict)
                for key, verdict in (("holds", HOLDS), ("fails", FAILS), ("open", UNDECIDED))
            },
            "overall": overall(verdicts[claim].values()),
        }
        for claim in order
        if claim in verdicts
    ]
    return Table.of(COLUMNS, rows, NOTES)


def overall(verdicts: Iterable[str]) -> str:
    """What the verdicts of several places come to."""
    decided = set(verdicts) - {UNDECIDED}
    if not decided:
        return UNDECIDED
    return decided.pop() if len(decided) == 1 else MIXED


def _by_place(places: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Verdicts by place, with its grid where grids differ; of place -> grid -> verdict."""
    grids: dict[str, set[str]] = {}
    for place, of_grids in places.items():
        grids.setdefault(_dataset(place), set()).update(of_grids)
    verdicts = {}
    for place, of_grids in places.items():
        agree = grids[_dataset(place)] == set(of_grids) and len(set(of_grids.values())) == 1
        for grid, verdict in of_grids.items():
            verdicts[place if agree else f"{place} ({grid})"] = verdict
    return verdicts


def _grid_name(folder: Path, folders: Sequence[Path]) -> str:
    """The end of a folder's path that none of the other folders has: its name, where it is the only one."""
    others = set(folders) - {folder}
    ends = (folder.parts[-n:] for n in range(1, len(folder.parts) + 1))
    return "/".join(next(e for e in ends if all(o.parts[-len(e) :] != e for o in others)))


def _dataset(place: str) -> str:
    """That of "data set, device"; a device alone stands for itself."""
    return place.partition(", ")[0]


def _places(verdicts: Mapping[str, str], verdict: str) -> str | None:
    return "; ".join(place for place, its in verdicts.items() if its == verdict) or None


def _rows(path: Path) -> list[dict[str, str]]:
    import pandas as pd

    with reading(path, "a table of claims", "haste table claims"):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        return frame[list(NEEDED)].drop_duplicates().to_dict("records")
