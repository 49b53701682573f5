from pathlib import Path

import pytest
from typer.testing import CliRunner

from haste.cli import app
from haste.errors import DataError
from haste.report.verdicts import overall, verdicts_table

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be decided here"
ROOT = Path(__file__).parents[2]
COMMITTED = ("wordnet-tuned", "wordnet-768", "wikdict", "debian", "mini", "mini-768")


@pytest.fixture
def claims_of(tmp_path):
    """Writes a grid's table of claims: rows of (claim, place, verdict)."""

    def write(grid, *rows):
        path = tmp_path / grid / "tables" / "claims.csv"
        path.parent.mkdir(parents=True)
        lines = [
            f'{claim},"{place}",text of {claim},{verdict},0.5' for claim, place, verdict in rows
        ]
        path.write_text("\n".join(["claim,place,text,verdict,ours", *lines, ""]))
        return path

    return write


def test_a_claim_s_verdict_is_by_data_set_then_overall(claims_of):
    one = claims_of("one", ("C8", "a, H100", HOLDS), ("C7", "a, H100", OPEN), ("C1", "H100", HOLDS))
    two = claims_of(
        "two", ("C8", "b, H100", FAILS), ("C7", "b, H100", FAILS), ("C1", "H100", HOLDS)
    )
    rows = {row["claim"]: row for row in verdicts_table([one, two]).rows}
    assert list(rows) == ["C1", "C7", "C8"]
    # a benchmark that both grids show is one place
    assert rows["C1"] == {
        **{"claim": "C1", "text": "text of C1", "holds": "H100", "fails": None, "open": None},
        "overall": HOLDS,
    }
    assert (rows["C7"]["fails"], rows["C7"]["open"]) == ("b, H100", "a, H100")
    assert (rows["C8"]["holds"], rows["C8"]["fails"]) == ("a, H100", "b, H100")
    assert (rows["C7"]["overall"], rows["C8"]["overall"]) == (FAILS, "holds on some")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([HOLDS, HOLDS], HOLDS),
        ([FAILS, OPEN], FAILS),
        ([OPEN, HOLDS], HOLDS),
        ([OPEN, OPEN], OPEN),
        ([HOLDS, FAILS, OPEN], "holds on some"),
    ],
)
def test_overall(verdicts, expected):
    assert overall(verdicts) == expected


def test_several_rows_of_a_claim_are_one_verdict(claims_of):
    path = claims_of("one", ("C5", "a", FAILS), ("C5", "a", FAILS))
    (row,) = verdicts_table([path]).rows
    assert row["fails"] == "a"


def test_a_grid_may_have_several_data_sets(claims_of):
    (row,) = verdicts_table([claims_of("one", ("C8", "a", HOLDS), ("C8", "b", FAILS))]).rows
    assert (row["holds"], row["fails"], row["overall"]) == ("a", "b", "holds on some")


def test_grids_are_named_where_they_differ_on_a_data_set(claims_of):
    tables = [claims_of("one", ("C8", "a", HOLDS)), claims_of("two", ("C8", "a", OPEN))]
    (row,) = verdicts_table(tables).rows
    assert (row["holds"], row["open"]) == ("a (one)", "a (two)")


def test_grids_are_named_where_they_have_a_data_set_on_devices_of_their_own(claims_of):
    one = claims_of(
        "one", ("C8", "a, H100", HOLDS), ("C8", "b, H100", HOLDS), ("C1", "H100", HOLDS)
    )
    two = claims_of("two", ("C8", "a, H200", OPEN), ("C1", "H200", FAILS))
    rows = {row["claim"]: row for row in verdicts_table([one, two]).rows}
    assert (rows["C8"]["holds"], rows["C8"]["open"]) == ("a, H100 (one); b, H100", "a, H200 (two)")
    assert (rows["C1"]["holds"], rows["C1"]["fails"]) == ("H100", "H200")


def test_grids_whose_folders_have_one_name_are_told_apart(claims_of):
    tables = [
        claims_of("lab/first/results", ("C8", "a", HOLDS)),
        claims_of("lab/second/results", ("C8", "a", FAILS)),
        claims_of("third", ("C8", "a", OPEN)),
    ]
    (row,) = verdicts_table(tables).rows
    assert (row["holds"], row["fails"]) == ("a (first/results)", "a (second/results)")
    assert (row["open"], row["overall"]) == ("a (third)", "holds on some")
    # the same table twice is one grid
    (row,) = verdicts_table(tables[:1] * 2).rows
    assert (row["holds"], row["fails"]) == ("a", None)


def test_a_claim_of_another_version_is_refused(claims_of):
    with pytest.raises(DataError, match=r"one.*claim C99"):
        verdicts_table([claims_of("one", ("C99", "a", HOLDS))])


def test_other_tables_are_refused(tmp_path):
    other = tmp_path / "main.csv"
    with pytest.raises(DataError, match=r"main\.csv: no such file"):
        verdicts_table([other])
    other.write_text("method,P@1\nhaste,1\n")
    with pytest.raises(DataError, match=r"main\.csv: not a table of claims"):
        verdicts_table([other])


def test_the_committed_table_is_that_of_the_committed_claims(tmp_path):
    tables = [str(ROOT / "results" / name / "tables/claims.csv") for name in COMMITTED]
    made = CliRunner().invoke(app, ["verdicts", *tables, "--out", str(tmp_path / "verdicts")])
    assert made.exit_code == 0, made.output
    for suffix in (".csv", ".md", ".tex"):
        committed = (ROOT / "results/verdicts").with_suffix(suffix)
        assert (tmp_path / "verdicts").with_suffix(suffix).read_text() == committed.read_text()
