"""One JSON object a line: uid, title, content and, for documents, target_ind, the labels' line numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from haste.data.readers.base import (
    SPLITS,
    Block,
    Layout,
    chosen_text,
    default_uids,
    in_blocks,
    pack_labels,
)
from haste.data.readers.lines import bad_line, count_lines, json_objects
from haste.textlines import is_whole

ENDINGS = ("json", "json.gz", "raw.json", "raw.json.gz")


class JsonLines(Layout):
    """trn.json, tst.json and, where labels have a text, lbl.json."""

    name = "JSON lines"
    needs = "trn.json and tst.json (.gz, .raw.json and .raw.json.gz too)"
    roles: ClassVar = {"documents": tuple(f"{{short}}.{ending}" for ending in ENDINGS)}
    counted = "documents"
    label_files = tuple(f"lbl.{ending}" for ending in ENDINGS)

    @cached_property
    def n_labels(self) -> int | None:
        """See Layout."""
        return None if self.labels_path is None else _count(self.labels_path)

    def count(self, split: str) -> int:
        """See Layout; reads through the file once."""
        return self._counts[split]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {split: _count(self.path("documents", split)) for split in SPLITS}

    def _blocks(self, split: str) -> Iterator[Block]:
        path = self.path("documents", split)
        for first, (uids, texts, labels) in in_blocks(self._documents(path)):
            named = default_uids(split, first, len(uids)) if None in uids else uids
            yield Block(named, texts, pack_labels(labels, self.n_labels, path, first + 1))

    def _documents(self, path: Path) -> Iterator[tuple[str | None, str, list[int]]]:
        for number, entry in json_objects(path):
            labels = entry.get("target_ind")
            if not isinstance(labels, list) or not set(map(type, labels)) <= {int}:
                raise bad_line(path, number, "target_ind: a list of whole numbers", labels)
            uid, title, content = _texts(path, number, entry)
            yield uid, chosen_text(title, content, self.text), labels

    def _label_rows(self) -> Iterator[tuple[str | None, str, str]] | None:
        return None if self.labels_path is None else self._labels(self.labels_path)

    def _labels(self, path: Path) -> Iterator[tuple[str | None, str, str]]:
        for number, entry in json_objects(path):
            uid, title, content = _texts(path, number, entry)
            yield uid, title, chosen_text(title, content, self.text)


def _count(path: Path) -> int:
    """Objects of a file, whose last lines may be blank."""
    lines, blank = count_lines(path)
    return lines - blank


def _texts(path: Path, number: int, entry: dict[str, Any]) -> tuple[str | None, str, str]:
    """uid, title and content of an object; content may be missing, and so may uid."""
    uid: Any = entry.get("uid")
    title: Any = entry.get("title")
    content = entry.get("content", "")
    if type(uid) is int:
        uid = str(uid)
    for key, value in (("title", title), ("content", content), ("uid", uid)):
        if key == "uid" and value is None:
            continue
        if not isinstance(value, str):
            raise bad_line(path, number, f"{key}: a text", value)
        if not is_whole(value):
            raise bad_line(path, number, f"{key}: a text of whole characters", ascii(value))
    return uid, title, content
