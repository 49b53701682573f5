"""A table as a data frame, and the ways to write it: csv (raw numbers), Markdown and LaTeX (rounded)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haste.files import atomic

if TYPE_CHECKING:
    import pandas as pd

MISSING = "–"
OPEN = "open"
"""in the place of values of runs that have not finished"""
GIB, MIB, MILLION = 2**30, 2**20, 1e6
"""scales of columns"""


def mean_std(key: str, values: Iterable[float | None]) -> dict[str, float | None]:
    """The cells of a column of means: mean over the finite values, and the sample standard deviation
    (n - 1) where there are several. No cells where there is no value."""
    finite = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return {}
    mean, std = math.fsum(finite) / len(finite), None
    if len(finite) > 1:
        std = math.sqrt(math.fsum((v - mean) ** 2 for v in finite) / (len(finite) - 1))
    return {f"{key} mean": mean, f"{key} std": std}


def interval(key: str, value: float, low: float, high: float) -> dict[str, float]:
    """The cells of a column of values with an interval."""
    return {key: value, f"{key} low": low, f"{key} high": high}


@dataclass(frozen=True)
class Column:
    """A column for readers: one of the frame, or a mean or value with those that go with it."""

    key: str
    """name in the frame, with the unit where the raw number has one; the frame has `key` alone, or
    `key mean` and `key std`, or `key`, `key low` and `key high`"""
    title: str
    """heading, with the unit shown"""
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

    @property
    def raw(self) -> tuple[tuple[str, ...], ...]:
        """The names of raw columns that the frame may have for it."""
        key = self.key
        return (f"{key} mean", f"{key} std"), (key, f"{key} low", f"{key} high"), (key,)

    def number(self, value: float, signed: bool) -> str:
        """Scaled and rounded."""
        # rounded first, and 0 added, so that nothing shows as -0.0
        rounded = round(value / self.scale, self.digits) + 0.0
        return f"{rounded:{'+' if signed else ''},.{self.digits}f}".replace("-", "−")

    def show(self, row: Mapping[str, Any]) -> str:
        """The cell of a row of the frame as a reader sees it."""
        value = row.get(self.key, row.get(f"{self.key} mean"))
        if value is None:
            return MISSING
        if isinstance(value, str):
            return value
        shown = self.number(value, self.signed)
        if row.get(f"{self.key} std") is not None:
            shown += f" ± {self.number(row[f'{self.key} std'], False)}"
        if row.get(f"{self.key} low") is not None:
            low, high = (
                self.number(row[f"{self.key} {end}"], self.signed) for end in ("low", "high")
            )
            shown += f" [{low}, {high}]"
        return shown


@dataclass(frozen=True)
class Table:
    """Raw numbers and how they are shown, with notes."""

    columns: tuple[Column, ...]
    frame: pd.DataFrame
    """the csv: raw numbers and texts, None where there is none"""
    notes: tuple[str, ...]
    section: str | None
    """the column whose values part the rows: a heading for readers"""

    @classmethod
    def of(
        cls,
        columns: Sequence[Column],
        rows: Sequence[Mapping[str, Any]],
        notes: Iterable[str] = (),
        section: str | None = None,
    ) -> Table:
        """Of rows by raw column; a column that no row has is an empty one."""
        import pandas as pd

        known = {name for row in rows for name in row}
        names = [
            name
            for column in columns
            for name in next((raw for raw in column.raw if known >= set(raw)), (column.key,))
        ]
        frame = pd.DataFrame(rows, columns=names, dtype=object)
        return cls(tuple(columns), frame.where(frame.notna(), None), tuple(notes), section)

    @classmethod
    def of_cells(
        cls,
        rows: Sequence[Mapping[Column, Any]],
        notes: Iterable[str] = (),
        section: str | None = None,
    ) -> Table:
        """Of rows by column, without columns that no row fills; True and False are words for readers."""
        shown = [{column: _cell(value) for column, value in row.items()} for row in rows]
        columns = dict.fromkeys(column for row in shown for column in row)
        filled = {column for row in shown for column, cell in row.items() if cell is not None}
        return cls.of(
            [column for column in columns if column in filled],
            [{column.key: cell for column, cell in row.items()} for row in shown],
            notes,
            section,
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the frame."""
        return self.frame.to_dict("records")

    def sections(self) -> list[tuple[str, pd.DataFrame]]:
        """Rows by section, in the order in which the sections first appear."""
        if self.section is None:
            return [("", self.frame)]
        return [(str(name), part) for name, part in self.frame.groupby(self.section, sort=False)]

    def shown_columns(self) -> list[Column]:
        """The columns for readers, to whom the section is a heading."""
        return [column for column in self.columns if column.key != self.section]

    def is_text(self, column: Column) -> bool:
        """Whether a column has words, which stand on the left."""
        raw = [name for name in column.raw[0] + column.raw[1] if name in self.frame]
        return raw == [column.key] and any(isinstance(v, str) for v in self.frame[column.key])

    def shown(self, part: pd.DataFrame) -> pd.DataFrame:
        """The rows of a section as a reader sees them: texts by key of the column."""
        import pandas as pd

        columns = self.shown_columns()
        once = [column.key for column in columns if column.once]
        rows, above = [], None
        for row in part.to_dict("records"):
            marked = [row[key] for key in once]
            repeated = once if once and marked == above else ()
            above = marked
            rows.append([c.show(row) if c.key not in repeated else "" for c in columns])
        return pd.DataFrame(rows, columns=[column.key for column in columns])

    def best(self, part: pd.DataFrame) -> pd.DataFrame:
        """bool, like `shown`: the highest of its column; all that show the same as the highest."""
        import pandas as pd

        columns = self.shown_columns()
        mask = pd.DataFrame(False, index=range(len(part)), columns=[c.key for c in columns])
        for column in (column for column in columns if column.best):
            name = f"{column.key} mean" if f"{column.key} mean" in part else column.key
            means = {
                i: round(value / column.scale, column.digits)
                for i, value in enumerate(part[name])
                if isinstance(value, int | float)
            }
            if len(means) > 1:
                highest = max(means.values())
                mask.loc[[i for i, mean in means.items() if mean == highest], column.key] = True
        return mask


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(prefix: Path | str, title: str, table: Table) -> list[Path]:
    """Write PREFIX.csv, .md and .tex; returns the paths."""
    texts = {
        Path(f"{prefix}.csv"): table.frame.to_csv(index=False, lineterminator="\n"),
        Path(f"{prefix}.md"): markdown(title, table),
        Path(f"{prefix}.tex"): latex(title, table),
    }
    for path, text in texts.items():
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def markdown(title: str, table: Table) -> str:
    """GitHub-flavoured Markdown: one pipe table a section, the best in bold, notes below."""
    columns = table.shown_columns()
    lines = [f"## {title}", ""]
    for heading, part in table.sections():
        if table.section:
            lines += [f"### {_escape_markdown(heading)}", ""]
        lines.append(_pipes(column.title for column in columns))
        lines.append("|" + "|".join("---" if table.is_text(c) else "---:" for c in columns) + "|")
        shown = table.shown(part).map(_escape_markdown)
        shown = shown.where(~table.best(part), "**" + shown + "**")
        lines += [_pipes(row) for row in shown.itertuples(index=False)]
        lines.append("")
    lines += [f"- {_escape_markdown(note)}" for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def latex(title: str, table: Table) -> str:
    r"""A `table` environment for \input; needs booktabs, and graphicx where it is wide."""
    import pandas as pd

    columns = table.shown_columns()
    wide = len(columns) > 8 or any(column.width for column in columns)
    aligned = "".join(
        f"p{{{c.width}cm}}" if c.width else "l" if table.is_text(c) else "r" for c in columns
    )
    parts = []
    for i, (heading, part) in enumerate(table.sections()):
        shown = table.shown(part).map(escape_latex)
        if table.section:
            # a row of its own, above the section's first
            above = rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{escape_latex(heading)}}}}} \\"
            above = above if i == 0 else f"\\midrule\n{above}"
            shown.iloc[0, 0] = f"{above}\n{shown.iloc[0, 0]}"
        parts.append(shown.where(~table.best(part), r"\textbf{" + shown + "}"))
    titles = [escape_latex(column.title) for column in columns]
    styler = pd.concat(parts, ignore_index=True).style.hide(axis="index")
    styler.relabel_index(titles, axis="columns")
    body = styler.to_latex(hrules=True, column_format=aligned)
    return "\n".join(
        [
            r"% \usepackage{booktabs}" + (r" \usepackage{graphicx}" if wide else ""),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(title)}}}",
            r"\resizebox{\textwidth}{!}{%" if wide else r"\small",
            body.rstrip("\n") + ("}" if wide else ""),
            *(rf"\par\smallskip{{\footnotesize {escape_latex(note)}}}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
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


def escape_latex(text: str) -> str:
    """Text as LaTeX that typesets as the text; each character is replaced once."""
    return text.translate({ord(c): latex for c, latex in _LATEX.items()})


def _escape_markdown(text: str) -> str:
    return text.translate({ord(c): f"\\{c}" for c in "\\|*_"})


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
