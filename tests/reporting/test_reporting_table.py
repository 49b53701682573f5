import csv
import io
import re

import pytest

from haste.reporting.table import (
    Column,
    Interval,
    Stat,
    Table,
    csv_rows,
    escape_tex,
    latex,
    markdown,
    show,
    webpage,
    write_table,
)

COLUMNS = (
    Column("dataset", "Data set"),
    Column("method", "Method"),
    Column("P@1", "P@1", best=True),
    Column("bytes", "Memory (MiB)", scale=2**20, digits=2, best=True),
    Column("gain", "Δ", digits=2),
)
ROWS = (
    {
        "dataset": "a",
        "method": "x_1 & co",
        "P@1": Stat(40.04, 1.25, 3),
        "bytes": Stat(2**20, None, 1),
    },
    {"dataset": "a", "method": "y", "P@1": Stat(39.96, 0.5, 3), "gain": Interval(-1.5, -2.25, 0.0)},
    {"dataset": "a", "method": "z", "P@1": Stat(12.0, None, 1), "bytes": Stat(2**21, None, 1)},
    {"dataset": "b", "method": "y", "P@1": Stat(1.0, None, 1)},
)
TABLE = Table("All", COLUMNS, ROWS, ("50% off",), section="dataset")


def test_mean_and_sample_deviation_by_hand():
    stat = Stat.of([1.0, 2.0, 6.0])
    assert stat.mean == pytest.approx(3.0)
    assert stat.std == pytest.approx(7.0**0.5)  # (4 + 1 + 9) / (3 - 1)
    assert stat.n == 3


def test_one_value_has_no_deviation_and_none_has_no_mean():
    assert Stat.of([4.0]) == Stat(4.0, None, 1)
    assert Stat.of([4.0, None, float("nan")]) == Stat(4.0, None, 1)
    assert Stat.of([None, float("nan")]) is None


def test_csv_has_raw_numbers_with_a_column_for_mean_std_and_ends():
    first, second, *_ = csv_rows(TABLE)
    assert first["P@1 mean"] == 40.04
    assert first["P@1 std"] == 1.25
    assert first["bytes mean"] == 2**20
    assert first["bytes std"] == ""
    assert (second["gain"], second["gain low"], second["gain high"]) == (-1.5, -2.25, 0.0)
    assert (first["gain"], first["gain low"]) == ("", "")


def test_csv_file_reads_back(tmp_path):
    paths = write_table(tmp_path / "all", TABLE)
    assert [path.name for path in paths] == ["all.csv", "all.md", "all.tex", "all.html"]
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert [row["dataset"] for row in rows] == ["a", "a", "a", "b"]
    assert float(rows[0]["P@1 mean"]) == 40.04


def test_markdown_shows_spread_sections_and_bolds_what_shows_as_the_best():
    text = markdown(TABLE)
    # 40.04 and 39.96 both show as 40.0
    assert "| x\\_1 & co | **40.0 ± 1.2** | 1.00 | – |" in text
    assert "| y | **40.0 ± 0.5** | – | −1.50 [−2.25, 0.00] |" in text
    assert "| z | 12.0 | **2.00** | – |" in text
    # alone in its section, nothing to be better than
    assert "| y | 1.0 | – | – |" in text
    assert text.index("### a") < text.index("### b")
    assert text.endswith("- 50% off\n")


def test_latex_is_escaped_and_has_as_many_cells_as_columns():
    text = latex(TABLE)
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
    text = latex(Table("Wide", columns, ({"c0": 1.0},)))
    assert r"\resizebox{\textwidth}{!}{%" in text
    assert "graphicx" in text
    assert r"\resizebox" not in latex(Table("Narrow", columns[:8], ({"c0": 1.0},)))


def test_latex_breaks_texts_with_a_width():
    columns = (Column("a", "a", width=4), Column("b", "b"))
    assert r"\begin{tabular}{p{4cm}r}" in latex(Table("T", columns, ({"a": "long", "b": 1.0},)))


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
def test_escape_tex(raw, escaped):
    assert escape_tex(raw) == escaped


def test_html_stands_alone_and_escapes():
    text = webpage(Table("A < B", COLUMNS, ROWS, ("<b>",), section="dataset"))
    assert "<title>A &lt; B</title>" in text
    assert "x_1 &amp; co" in text
    assert "<b>40.0 ± 1.2</b>" in text
    assert "<li>&lt;b&gt;</li>" in text
    assert "src=" not in text
    assert "href=" not in text


def test_numbers_never_show_as_minus_zero():
    assert show(Column("a", "a", digits=2), -0.0001) == "0.00"
    assert show(Column("a", "a", digits=1, signed=True), -0.06) == "−0.1"
    assert show(Column("a", "a", digits=1, signed=True), 0.06) == "+0.1"
    assert show(Column("a", "a", digits=0), 1234567) == "1,234,567"


def test_once_columns_are_blank_below_the_same():
    columns = (Column("id", "id", once=True), Column("v", "v", once=True), Column("n", "n"))
    rows = tuple(
        {"id": i, "v": v, "n": n}
        for i, v, n in [("C1", "yes", 1.0), ("C1", "yes", 2.0), ("C2", "yes", 3.0)]
    )
    lines = markdown(Table("T", columns, rows)).splitlines()
    assert lines[4:7] == ["| C1 | yes | 1.0 |", "|  |  | 2.0 |", "| C2 | yes | 3.0 |"]
    assert [row["id"] for row in csv_rows(Table("T", columns, rows))] == ["C1", "C1", "C2"]
