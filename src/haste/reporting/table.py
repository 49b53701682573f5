"""A table as data, and the ways to write it: csv (raw numbers), Markdown, LaTeX and HTML (rounded)."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haste.files import atomic

MISSING = "–"
OPEN = "open"
"""in the place of numbers of runs that have not finished"""
GIB, MIB, MILLION = 2**30, 2**20, 1e6
"""scales of columns"""


@dataclass(frozen=True)
class Stat:
    """A mean over seeds, with the sample standard deviation (n - 1) where there are several."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat | None:
        """Mean and deviation of the finite values; None where there is none."""
        values = [float(v) for v in values if v is not None and math.isfinite(v)]
        if not values:
            return None
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return cls(mean, None, 1)
        variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
        return cls(mean, math.sqrt(variance), len(values))


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


Cell = str | int | float | Stat | Interval | None


@dataclass(frozen=True)
class Column:
    """A column: its name in the csv, its heading, and how its numbers are shown."""

    key: str
    """name in the csv, with the unit where the raw number has one"""
    title: str
    """heading in Markdown and LaTeX, with the unit shown"""
    digits: int = 1
    best: bool = False
    """set the highest in bold"""
    scale: float = 1.0
    """what is shown is the raw number divided by this; the csv keeps the raw number"""
    signed: bool = False
    """show the sign of positive numbers: a difference"""
    width: float | None = None
    """of a text that is broken into lines; in cm, in LaTeX"""
    once: bool = False
    """leave it blank for a reader below a row that has the same in all columns marked so"""


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns, with notes; `section` names the column whose values part them."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]
    notes: tuple[str, ...] = ()
    section: str | None = None

    def sections(self) -> list[tuple[str, list[Mapping[str, Cell]]]]:
        """Rows by section, in the order in which the sections first appear."""
        parts: dict[str, list[Mapping[str, Cell]]] = {}
        for row in self.rows:
            parts.setdefault(str(row[self.section]) if self.section else "", []).append(row)
        return list(parts.items())

    def shown_columns(self) -> tuple[Column, ...]:
        """Columns of Markdown and LaTeX: the section is a heading there."""
        return tuple(c for c in self.columns if c.key != self.section)


def write_table(prefix: Path | str, table: Table) -> list[Path]:
    """Write PREFIX.csv, .md, .tex and .html; returns the paths."""
    renderers = {".csv": _csv, ".md": markdown, ".tex": latex, ".html": webpage}
    paths = []
    for suffix, render in renderers.items():
        path = Path(f"{prefix}{suffix}")
        with atomic(path) as temporary:
            temporary.write_text(render(table), encoding="utf-8")
        paths.append(path)
    return paths


def csv_rows(table: Table) -> list[dict[str, str | int | float]]:
    """Raw numbers: a Stat becomes `key mean` and `key std`, an Interval `key`, `key low`, `key high`."""
    kinds = {column.key: _kind(table, column.key) for column in table.columns}
    return [
        {
            name: value
            for column in table.columns
            for name, value in _raw(column.key, row.get(column.key), kinds[column.key]).items()
        }
        for row in table.rows
    ]


def markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: one pipe table a section, the best in bold, notes below."""
    columns = table.shown_columns()
    lines = [f"## {table.title}", ""]
    for heading, rows in table.sections():
        if table.section:
            lines += [f"### {_escape_md(heading)}", ""]
        lines.append(_md_row([column.title for column in columns]))
        lines.append("|" + "|".join("---" if _text(table, c) else "---:" for c in columns) + "|")
        lines += [_md_row(cells) for cells in _shown(columns, rows, _escape_md, "**{}**")]
        lines.append("")
    lines += [f"- {_escape_md(note)}" for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def latex(table: Table) -> str:
    r"""A `table` environment for \input; needs booktabs, and graphicx where it is wide."""
    columns = table.shown_columns()
    wide = len(columns) > 8 or any(column.width for column in columns)
    aligned = "".join(
        f"p{{{c.width}cm}}" if c.width else "l" if _text(table, c) else "r" for c in columns
    )
    lines = [
        r"% \usepackage{booktabs}" + (r" \usepackage{graphicx}" if wide else ""),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_tex(table.title)}}}",
        r"\resizebox{\textwidth}{!}{%" if wide else r"\small",
        rf"\begin{{tabular}}{{{aligned}}}",
        r"\toprule",
        " & ".join(escape_tex(column.title) for column in columns) + r" \\",
    ]
    for heading, rows in table.sections():
        lines.append(r"\midrule")
        if table.section:
            spanning = rf"\multicolumn{{{len(columns)}}}{{l}}"
            lines.append(rf"{spanning}{{\emph{{{escape_tex(heading)}}}}} \\")
        lines += [
            " & ".join(cells) + r" \\"
            for cells in _shown(columns, rows, escape_tex, r"\textbf{{{}}}")
        ]
    lines += [r"\bottomrule", r"\end{tabular}" + ("}" if wide else "")]
    lines += [rf"\par\smallskip{{\footnotesize {escape_tex(note)}}}" for note in table.notes]
    lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


_STYLE = """
body { font: 13px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 1.5rem; }
h1 { font-size: 1.3rem; margin: 0 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; }
th, td { padding: .3rem .55rem; text-align: right; vertical-align: top; }
th { border-bottom: 1px solid; vertical-align: bottom; }
td { white-space: nowrap; }
.text { text-align: left; }
.broken { white-space: normal; }
.section th { font-style: italic; padding-top: .8rem; }
.new td { border-top: 1px solid #ddd; }
td { font-variant-numeric: tabular-nums; }
ul { max-width: 60rem; padding-left: 1.2rem; color: #444; }
"""


def webpage(table: Table) -> str:
    """A page of its own that needs nothing else, for report.html."""
    columns = table.shown_columns()
    kinds = [
        ' class="text broken"' if c.width else ' class="text"' if _text(table, c) else ""
        for c in columns
    ]
    heads = "".join(
        f"<th{k}>{html.escape(c.title)}</th>" for k, c in zip(kinds, columns, strict=True)
    )
    lines = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(table.title)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(table.title)}</h1>",
        f"<div><table><thead><tr>{heads}</tr></thead><tbody>",
    ]
    for heading, rows in table.sections():
        if table.section:
            spanning = f'<th class="text" colspan="{len(columns)}">{html.escape(heading)}</th>'
            lines.append(f'<tr class="section">{spanning}</tr>')
        for cells in _shown(columns, rows, html.escape, "<b>{}</b>"):
            row = "".join(f"<td{k}>{cell}</td>" for k, cell in zip(kinds, cells, strict=True))
            lines.append(f'<tr class="new">{row}</tr>' if cells[0] else f"<tr>{row}</tr>")
    lines.append("</tbody></table></div>")
    if table.notes:
        lines.append("<ul>" + "".join(f"<li>{html.escape(n)}</li>" for n in table.notes) + "</ul>")
    lines.append("</body></html>")
    return "\n".join(lines) + "\n"


def show(column: Column, cell: Cell) -> str:
    """A cell as a reader sees it: scaled, rounded to the column's digits, with its spread."""
    if cell is None:
        return MISSING
    if isinstance(cell, str):
        return cell

    def number(value: float, sign: bool = column.signed) -> str:
        # rounded first, and 0 added, so that nothing shows as -0.0
        rounded = round(value / column.scale, column.digits) + 0.0
        text = f"{rounded:{'+' if sign else ''},.{column.digits}f}"
        return text.replace("-", "−")

    if isinstance(cell, Stat):
        spread = "" if cell.std is None else f" ± {number(cell.std, sign=False)}"
        return number(cell.mean) + spread
    if isinstance(cell, Interval):
        return f"{number(cell.value)} [{number(cell.low)}, {number(cell.high)}]"
    return number(cell)


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "Δ": r"$\Delta$",
    "–": "--",
}


def escape_tex(text: str) -> str:
    """Text as LaTeX that typesets as the text; each character is replaced once."""
    return "".join(_TEX.get(character, character) for character in text)


def _escape_md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown(
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Cell]],
    escape: Callable[[str], str],
    bold: str,
) -> Iterator[list[str]]:
    """The rows of a section as a reader sees them; `bold` is a format for the best cells."""
    best = _best(columns, rows)
    marked = [column.key for column in columns if column.once]
    above: list[Cell] = []
    for i, row in enumerate(rows):
        same = bool(marked) and [row.get(key) for key in marked] == above
        above = [row.get(key) for key in marked]
        cells = []
        for column in columns:
            text = "" if same and column.once else escape(show(column, row.get(column.key)))
            cells.append(bold.format(text) if (i, column.key) in best else text)
        yield cells


def _text(table: Table, column: Column) -> bool:
    return _kind(table, column.key) == "text"


def _kind(table: Table, key: str) -> str:
    """stat, interval, text or number: what the filled cells of a column are."""
    cells = [row.get(key) for row in table.rows]
    if any(isinstance(cell, Stat) for cell in cells):
        return "stat"
    if any(isinstance(cell, Interval) for cell in cells):
        return "interval"
    return "text" if any(isinstance(cell, str) for cell in cells) else "number"


def _raw(key: str, cell: Cell, kind: str) -> dict[str, str | int | float]:
    if kind == "stat":
        found = (cell.mean, cell.std) if isinstance(cell, Stat) else (cell, None)
        names = (f"{key} mean", f"{key} std")
    elif kind == "interval":
        found = (
            (cell.value, cell.low, cell.high) if isinstance(cell, Interval) else (cell, None, None)
        )
        names = (key, f"{key} low", f"{key} high")
    else:
        found, names = (cell,), (key,)
    return {n: "" if value is None else value for n, value in zip(names, found, strict=True)}


def _csv(table: Table) -> str:
    rows = csv_rows(table)
    names = list(rows[0]) if rows else [column.key for column in table.columns]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _best(columns: Sequence[Column], rows: Sequence[Mapping[str, Cell]]) -> set[tuple[int, str]]:
    """(row, key) of the best cells; all that show the same mean as the best are bold."""
    bold = set()
    for column in columns:
        if not column.best:
            continue
        means = {
            i: round(_mean(row[column.key]) / column.scale, column.digits)
            for i, row in enumerate(rows)
            if isinstance(row.get(column.key), Stat | int | float)
        }
        if len(means) > 1:
            best = max(means.values())
            bold |= {(i, column.key) for i, mean in means.items() if mean == best}
    return bold


def _mean(cell: Cell) -> float:
    return cell.mean if isinstance(cell, Stat) else cell
