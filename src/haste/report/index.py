"""The page of a grid, index.html: verdicts, tables, figures and how each is made again.

It is made of what lies in the grid's folders of tables and figures, so it can be made without the runs.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from haste.files import atomic, reading
from haste.grid import GridConfig
from haste.report.registry import Entry, entries

if TYPE_CHECKING:
    import pandas as pd
    from markdown_it import MarkdownIt

OF_RUNS = {"device": "trained on", "backend": "metrics by"}
"""columns of the table of runs about where they were made, beside those about the machine"""
NARROWEST = 0.6
"""share of its size down to which a figure shrinks with the screen; then it scrolls"""
SENTENCE = re.compile(r"<td>(?=[^<]{24})")
"""a cell that is broken into lines"""


@dataclass(frozen=True)
class PageItem:
    """A table or figure of the page."""

    entry: Entry
    caption: str = ""
    """HTML"""
    body: str = ""
    """HTML of a table"""
    notes: str = ""
    """HTML of those below it"""
    width: int = 0
    """of a figure, in pixels of a page"""


def write_index(grid: GridConfig, command: str, out: Path | None = None) -> Path:
    """Write the page of what is in the grid's folders, by default beside them; returns its path.

    `command` makes a table or figure again: its name stands for TARGET.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    layout, parts, unfinished = grid.layout, [], []
    said: set[str] = set()

    def caption(entry: Entry) -> str:
        # a paragraph that the captions of ablations share is said once
        paragraphs = [text for text in entry.caption.split("\n\n") if text not in said]
        said.update(paragraphs)
        # captions are reStructuredText, of which they use paragraphs and ``literals``
        return reader.render("\n\n".join(paragraphs).replace("``", "`"))

    for entry in entries("table", grid).values():
        prefix = layout.table(entry.name)
        if not prefix.with_suffix(".md").exists():
            continue
        if _finished_rows(prefix) < (2 if entry.category == "Ablations" else 1):
            unfinished.append(PageItem(entry))
        else:
            text = prefix.with_suffix(".md").read_text(encoding="utf-8")
            parts.append(PageItem(entry, caption(entry), *_table(reader, text)))
    for entry in entries("figure", grid).values():
        path = layout.figure(entry.name).with_suffix(".png")
        if path.exists():
            parts.append(PageItem(entry, caption(entry), width=_width(path)))
    templates = Environment(
        loader=PackageLoader("haste.report", "."), autoescape=True, undefined=StrictUndefined
    )
    page = templates.get_template("index.html.j2").render(
        grid=grid,
        command=lambda entry: command.replace("TARGET", entry.target),
        claims=_verdicts(layout.table("claims")),
        main=[part for part in parts if part.entry.name == "main"],
        figures=[part for part in parts if part.entry.kind == "figure"],
        ablations=[part for part in parts if part.entry.category == "Ablations"],
        tables=[p for p in parts if p.entry.category == "Tables" and p.entry.name != "main"],
        unfinished=unfinished,
        environment=_environment(layout.table("runs")),
        narrowest=NARROWEST,
    )
    out = out or layout.results / "index.html"
    with atomic(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out


def _read(prefix: Path, dtype: type | None = None) -> pd.DataFrame | None:
    import pandas as pd

    path = prefix.with_suffix(".csv")
    if not path.exists():
        return None
    with reading(path, "a table"):
        return pd.read_csv(path, dtype=dtype)


def _finished_rows(prefix: Path) -> int:
    """How many rows have a number: those of runs and benchmarks that are not finished have none."""
    frame = _read(prefix)
    return 0 if frame is None else len(frame.select_dtypes("number").dropna(how="all"))


def _verdicts(prefix: Path) -> list[dict]:
    """The claims with their verdicts, one a data set or device; each row of the table is a comparison."""
    frame = _read(prefix)
    if frame is None:
        return []
    verdicts = frame.drop_duplicates(["claim", "place"])
    return [
        {"id": claim, "text": rows["text"].iloc[0], "verdicts": rows.to_dict("records")}
        for claim, rows in verdicts.groupby("claim", sort=False)
    ]


def _environment(prefix: Path) -> dict[str, str]:
    """Devices and versions, each with its number of runs where they differ."""
    # as text: version 12.10 is not 12.1
    frame = _read(prefix, str)
    if frame is None:
        return {}
    machine = [name for name in frame if name.startswith("machine ")]
    counted = {name: Counter(frame[name].dropna()) for name in (*OF_RUNS, *machine)}
    return {
        OF_RUNS.get(name, name.removeprefix("machine ")): ", ".join(
            value if len(values) == 1 else f"{value} ({n} run{'s' if n > 1 else ''})"
            for value, n in values.most_common()
        )
        for name, values in counted.items()
        if values
    }


def _table(reader: MarkdownIt, text: str) -> tuple[str, str]:
    """A table's Markdown and its notes as HTML, without its title: the heading of its part says it."""
    html = SENTENCE.sub('<td class="long">', reader.render(re.sub(r"\A## .*\n", "", text)))
    body, end, notes = html.rpartition("</table>")
    body = (body + end).replace("<table>", '<div class="scroll"><table>')
    return body.replace("</table>", "</table></div>"), notes


def _width(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:
        return image.width // 2
