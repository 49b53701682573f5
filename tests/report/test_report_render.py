import csv
import io
import re

import pytest

from haste.report.render import (
    Column,
    Table,
    escape_latex,
    interval,
    latex,
    markdown,
    mean_std,
    write_table,
)

COLUMNS = (
    Column("dataset", "Data set"),
    Column("method", "Method"),
    Column("P@1", "P@1", best=True),
    Column("bytes", "Memory (MiB)", scale=2**20, digits=2, best=True),
    Column("gain", "Δ", digits=2),
)


def cells(key, mean, std=None):
    return {f"{key} mean": mean, f"{key} std": std}


ROWS = (
    {"dataset": "a", "method": "x_1 & co", **cells("P@1", 40.04, 1.25), **cells("bytes", 2**20)},
    {
        "dataset": "a",
        "method": "y",
        **cells("P@1", 39.96, 0.5),
        **interval("gain", -1.5, -2.25, 0.0),
    },
    {"dataset": "a", "method": "z", **cells("P@1", 12.0), **cells("bytes", 2**21)},
    {"dataset": "b", "method": "y", **cells("P@1", 1.0)},
)
TABLE = Table.of(COLUMNS, ROWS, ("50% off",), section="dataset")


def test_mean_and_sample_deviation_by_hand():
    # (4 + 1 + 9) / (3 - 1)
    assert mean_std("x", [1.0, 2.0, 6.0]) == {"x mean": 3.0, "x std": pytest.approx(7.0**0.5)}


def test_one_value_has_no_deviation_and_none_has_no_mean():
    assert mean_std("x", [4.0]) == {"x mean": 4.0, "x std": None}
    assert mean_std("x", [4.0, None, float("nan")]) == {"x mean": 4.0, "x std": None}
    assert mean_std("x", [None, float("nan")]) == {}


def test_the_frame_has_raw_numbers_with_a_column_for_mean_std_and_ends():
    first, second, *_ = TABLE.rows
    assert (first["P@1 mean"], first["P@1 std"]) == (40.04, 1.25)
    assert (first["bytes mean"], first["bytes std"]) == (2**20, None)
    assert (second["gain"], second["gain low"], second["gain high"]) == (-1.5, -2.25, 0.0)
    assert (first["gain"], first["gain low"]) == (None, None)


def test_csv_file_reads_back(tmp_path):
    paths = write_table(tmp_path / "all", "All", TABLE)
    assert [path.name for path in paths] == ["all.csv", "all.md", "all.tex"]
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert [row["dataset"] for row in rows] == ["a", "a", "a", "b"]
    assert float(rows[0]["P@1 mean"]) == 40.04


def test_markdown_shows_spread_sections_and_bolds_what_shows_as_the_best():
    text = markdown("All", TABLE)
    # 40.04 and 39.96 both show as 40.0
    assert "| x\\_1 & co | **40.0 ± 1.2** | 1.00 | – |" in text
    assert "| y | **40.0 ± 0.5** | – | −1.50 [−2.25, 0.00] |" in text
    assert "| z | 12.0 | **2.00** | – |" in text
    # alone in its section, nothing to be better than
    assert "| y | 1.0 | – | – |" in text
    assert text.index("### a") < text.index("### b")
    assert text.endswith("- 50% off\n")


def test_latex_is_escaped_and_has_as_many_cells_as_columns():
    text = latex("All", TABLE)
    assert r"x\_1 \& co & \textbf{40.0 $\pm$ 1.2} & 1.00 & -- \\" in text
    assert r"\toprule" in text
    assert r"\bottomrule" in text
    assert r"50\% off" in text
    assert r"\multicolumn{4}{l}{\emph{a}} \\" in text
    body = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {3}
    unescaped = re.sub(r"\\[{}]", "", text)
    assert unescaped.count("{") == unescaped.count("}")


def test_wide_latex_is_scaled_to_the_page():
    columns = tuple(Column(f"c{i}", f"c{i}") for i in range(9))
    text = latex("Wide", Table.of(columns, [{"c0": 1.0}]))
    assert r"\resizebox{\textwidth}{!}{%" in text
    assert "graphicx" in text
    assert r"\resizebox" not in latex("Narrow", Table.of(columns[:8], [{"c0": 1.0}]))


def test_latex_breaks_texts_with_a_width():
    columns = (Column("a", "a", width=4), Column("b", "b"))
    assert r"\begin{tabular}{p{4cm}r}" in latex("T", Table.of(columns, [{"a": "long", "b": 1.0}]))


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("a_b", r"a\_b"),
        ("100%", r"100\%"),
        ("$x^2$", r"\$x\textasciicircum{}2\$"),
        ("{~#&}", r"\{\textasciitilde{}\#\&\}"),
        ("a\\b", r"a\textbackslash{}b"),
        ("−1 ± 2 ≥ 0", r"$-$1 $\pm$ 2 $\geq$ 0"),
    ],
)
def test_escape_latex(raw, escaped):
    assert escape_latex(raw) == escaped


def test_numbers_never_show_as_minus_zero():
    assert Column("a", "a", digits=2).show({"a": -0.0001}) == "0.00"
    assert Column("a", "a", digits=1, signed=True).show({"a": -0.06}) == "−0.1"
    assert Column("a", "a", digits=1, signed=True).show({"a": 0.06}) == "+0.1"
    assert Column("a", "a", digits=0).show({"a": 1234567}) == "1,234,567"


def test_once_columns_are_blank_below_the_same():
    columns = (Column("id", "id", once=True), Column("v", "v", once=True), Column("n", "n"))
    rows = tuple(
        {"id": i, "v": v, "n": n}
        for i, v, n in [("C1", "yes", 1.0), ("C1", "yes", 2.0), ("C2", "yes", 3.0)]
    )
    lines = markdown("T", Table.of(columns, rows)).splitlines()
    assert lines[4:7] == ["| C1 | yes | 1.0 |", "|  |  | 2.0 |", "| C2 | yes | 3.0 |"]
    assert [row["id"] for row in Table.of(columns, rows).rows] == ["C1", "C1", "C2"]
