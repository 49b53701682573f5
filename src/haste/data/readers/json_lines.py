"""One JSON object a line: uid, title, content and, for documents, target_ind, the labels' line numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from haste.data.readers.base import (
    SHORT,
    SPLITS,
    Block,
    Layout,
    chosen_text,
    default_uids,
    in_blocks,
    label_columns,
    pack_labels,
    take_strings,
)
from haste.data.readers.lines import (
    bad_line,
    count_lines,
    read_lines,
    without_blank_end,
)

ENDINGS = (".json", ".json.gz", ".raw.json", ".raw.json.gz")


class JsonLines(Layout):
    """trn.json, tst.json and, where labels have a text, lbl.json."""

    name = "JSON lines"
    needs = "trn.json and tst.json (.gz, .raw.json and .raw.json.gz too)"

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """See Layout."""
        return all(_find(folder, SHORT[split]) for split in SPLITS)

    @cached_property
    def n_labels(self) -> int | None:
        """See Layout."""
        path = _find(self.folder, "lbl")
        return None if path is None else _count(path)

    def path(self, split: str) -> Path:
        """See Layout."""
        return _find(self.folder, SHORT[split])

    def count(self, split: str) -> int:
        """See Layout; reads through the file once."""
        return self._counts[split]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {split: _count(self.path(split)) for split in SPLITS}

    def _files(self) -> list[Path]:
        labels = _find(self.folder, "lbl")
        return [*map(self.path, SPLITS), *([labels] if labels else [])]

    def _blocks(self, split: str) -> Iterator[Block]:
        path = self.path(split)
        for first, (uids, texts, labels) in in_blocks(_documents(path, self.text)):
            named = default_uids(split, first, len(uids)) if None in uids else uids
            yield Block(named, texts, pack_labels(labels, self.n_labels, path, first + 1))

    def labels(self, ids: np.ndarray) -> pa.Table:
        """See Layout."""
        path = _find(self.folder, "lbl")
        if path is None:
            return super().labels(ids)
        chunks: tuple[list[pa.Array], ...] = ([], [], [])
        for first, (uids, titles, texts) in in_blocks(_labels(path, self.text)):
            named = np.arange(first, first + len(uids)).astype(str) if None in uids else uids
            for column, values in zip(chunks, (named, titles, texts), strict=True):
                column.append(pa.array(values, pa.large_string()))
        columns = (pa.chunked_array(column, pa.large_string()) for column in chunks)
        return label_columns(*(take_strings(column, ids) for column in columns))


def _find(folder: Path, stem: str) -> Path | None:
    paths = (folder / f"{stem}{ending}" for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def _count(path: Path) -> int:
    """Objects of a file, whose last lines may be blank."""
    lines, blank = count_lines(path)
    return lines - blank


def _documents(path: Path, text: str) -> Iterator[tuple[str | None, str, list[int]]]:
    for number, entry in _entries(path):
        labels = entry.get("target_ind")
        if not isinstance(labels, list) or not set(map(type, labels)) <= {int}:
            raise bad_line(path, number, "target_ind: a list of whole numbers", labels)
        uid, title, content = _texts(path, number, entry)
        yield uid, chosen_text(title, content, text), labels


def _labels(path: Path, text: str) -> Iterator[tuple[str | None, str, str]]:
    for number, entry in _entries(path):
        uid, title, content = _texts(path, number, entry)
        yield uid, title, chosen_text(title, content, text)


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(without_blank_end(read_lines(path)), 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise bad_line(path, number, f"a JSON object ({error})", line) from error
        if not isinstance(entry, dict):
            raise bad_line(path, number, "a JSON object", line)
        yield number, entry


def _texts(path: Path, number: int, entry: dict[str, Any]) -> tuple[str | None, str, str]:
    """uid, title and content of an object; content may be missing, and so may uid."""
    uid, title, content = entry.get("uid"), entry.get("title"), entry.get("content", "")
    if type(uid) is int:
        uid = str(uid)
    for key, value in (("title", title), ("content", content), ("uid", uid)):
        if not isinstance(value, str) and not (key == "uid" and value is None):
            raise bad_line(path, number, f"{key}: a text", value)
        try:
            if value is not None:
                value.encode()
        except UnicodeEncodeError as error:  # half of a pair, as "\ud800" gives
            raise bad_line(
                path, number, f"{key}: a text of whole characters", ascii(value)
            ) from error
    return uid, title, content
