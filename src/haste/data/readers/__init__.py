"""Readers of the layouts in which extreme classification data sets are published."""

from __future__ import annotations

import os
from pathlib import Path

from haste.data.readers.attention_xml import AttentionXml
from haste.data.readers.base import Block, Layout
from haste.data.readers.dense import PecosEmbeddings
from haste.data.readers.json_lines import JsonLines
from haste.data.readers.pecos import Pecos, PecosFeatures
from haste.data.readers.repository import LibSvm, RepositoryFeatures, RepositoryText
from haste.data.readers.tabular import Table
from haste.errors import DataError

__all__ = ["LAYOUTS", "Block", "Layout", "detect"]

LAYOUTS: tuple[type[Layout], ...] = (
    Pecos,
    JsonLines,
    AttentionXml,
    RepositoryText,
    Table,
    PecosFeatures,
    PecosEmbeddings,
    RepositoryFeatures,
    LibSvm,
)
"""in order of preference: texts before sparse features"""
DEPTH = 3
"""levels of folders that are looked into"""
LISTED = 20


def detect(folder: Path | str, text: str = "title+content") -> Layout:
    """The layout of the data set in a folder, or in one folder below it; `text`: see Layout.

    What lies less deep counts, so that outputs in a folder below are not taken for the data set; in
    one folder the first of LAYOUTS does. Raises DataError, with what was found and what is needed,
    when there is none, or when it is in two folders.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. Give the folder with the files of the data set."
        )
    if not _is_readable(folder):
        raise DataError(f"{folder}: may not be read by this user. Change its permissions.")
    level, files = [folder], []
    for _ in range(DEPTH + 1):
        for layout in LAYOUTS:
            folders = [path for path in level if layout.lies_in(path)]
            if len(folders) > 1:
                raise DataError(
                    f"{folder}: the {layout.name} layout is in {folders[0]} and in {folders[1]}. Give one of them."
                )
            if folders:
                return layout(folders[0], text)
        below = sorted(path for parent in level for path in parent.iterdir())
        files += [str(path.relative_to(folder)) for path in below if path.is_file()]
        # links to folders among them, but hidden ones, and such as lost+found, that nobody may read
        level = [
            path
            for path in below
            if path.is_dir() and not path.name.startswith(".") and _is_readable(path)
        ]
    more = f" and {len(files) - LISTED} more" if len(files) > LISTED else ""
    needed = "; ".join(f"{layout.name}: {layout.needs}" for layout in LAYOUTS)
    raise DataError(
        f"{folder}: no layout of a data set. Found: {', '.join(files[:LISTED]) or 'no file'}{more}. "
        f"Needed is one of: {needed}."
    )


def _is_readable(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)
