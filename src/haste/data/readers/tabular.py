"""Tables of documents: csv, parquet or jsonl with a text and a labels column, and Hugging Face `datasets`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pyarrow import csv, ipc, parquet

from haste.data.readers.base import (
    SPLITS,
    TITLE_ENDS,
    Block,
    Layout,
    chosen_text,
    default_uids,
    in_blocks,
    pack_labels,
    whole_number,
)
from haste.data.readers.lines import json_objects
from haste.errors import DataError
from haste.files import read_json, reading
from haste.textlines import is_whole

LABELS = ("labels", "label")
SEPARATOR = ";"
"""between labels in a cell of a csv"""
ROWS_READ = 4096
_PART_OF = re.compile(r"-of-(\d+)\.")


class Table(Layout):
    """A table a split, of the columns `text` (or `title` and `content`) and `labels` (or `label`).

    Labels are lists of names or numbers, in a csv a JSON list or names separated by semicolons; a number and the
    same digits as a name are one label. Ids follow the order in which labels are first met, so the training
    documents are to be read first.
    """

    name = "table"
    needs = (
        "train and test as .csv, .parquet or .jsonl (train-00000-of-00002.parquet, too), or a folder that "
        "`datasets` saved, with the columns text and labels"
    )
    roles: ClassVar = {"documents": ()}
    counted = "documents"
    n_labels = None

    def __init__(self, folder: Path, text: str = "title+content") -> None:
        super().__init__(folder, text)
        self._ids: dict[str, int] = {}
        for split in SPLITS:
            _check_whole(_parts(folder, split))

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """See Layout."""
        return all(_parts(folder, split) for split in SPLITS)

    def path(self, role: str, split: str) -> Path:  # noqa: ARG002
        """See Layout; the first of several parts."""
        return _parts(self.folder, split)[0]

    def files(self) -> list[Path]:
        """See Layout."""
        optional = [*map(self.filter_path, SPLITS), *(self._info_path(s) for s in SPLITS)]
        parts = [path for split in SPLITS for path in _parts(self.folder, split)]
        return [*parts, *(path for path in dict.fromkeys(optional) if path.is_file())]

    def count(self, split: str) -> int:
        """See Layout; reads through the files once."""
        return self._counts[split]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {
            split: sum(1 for part in _parts(self.folder, split) for _ in _rows(part))
            for split in SPLITS
        }

    def _blocks(self, split: str) -> Iterator[Block]:
        path = self.path("documents", split)
        for first, (texts, labels) in in_blocks(self._documents(split)):
            ids = pack_labels(labels, None, path, first + 1)
            yield Block(default_uids(split, first, len(texts)), texts, ids)

    def _documents(self, split: str) -> Iterator[tuple[str, list[int]]]:
        for path in _parts(self.folder, split):
            for number, row in enumerate(_rows(path), 1):
                labels = _labels(path, number, row)
                ids = [self._ids.setdefault(label, len(self._ids)) for label in labels]
                yield self._text(path, number, row), ids

    def _text(self, path: Path, number: int, row: Mapping[str, Any]) -> str:
        if "text" in row:
            title, _, content = _string(path, number, row, "text").partition(TITLE_ENDS)
        elif "title" in row:
            title = _string(path, number, row, "title")
            content = _string(path, number, row, "content") if "content" in row else ""
        else:
            raise _no_column(path, number, "text, or title and content", row)
        return chosen_text(title.strip(), content.strip(), self.text)

    def _label_rows(self) -> Iterator[tuple[str, str, None]]:
        names = self._names
        for label in self._ids:
            number = whole_number(label)
            yield label, names[number] if 0 <= number < len(names) else label, None

    @property
    def _names(self) -> list[str]:
        """Of numbered labels, where `datasets` has written them down."""
        path = self._info_path("train")
        if not path.is_file():
            return []
        features = read_json(path).get("features", {})
        column: dict[str, Any] = next((features[name] for name in LABELS if name in features), {})
        names = column.get("names") or column.get("feature", {}).get("names") or []
        return list(map(str, names))

    def _info_path(self, split: str) -> Path:
        return self.folder / split / "dataset_info.json"


def _parts(folder: Path, split: str) -> list[Path]:
    """The files of a split in a folder, in order; of several kinds the first."""
    for pattern in (f"{split}.parquet", f"{split}.jsonl", f"{split}.jsonl.gz", f"{split}.csv"):
        if (folder / pattern).is_file():
            return [folder / pattern]
    for pattern in (f"{split}-*.parquet", f"{split}/data-*.arrow"):
        if parts := sorted(folder.glob(pattern)):
            return parts
    return []


def _check_whole(parts: list[Path]) -> None:
    """Raise DataError where one of several parts is not there, by what their names say of their number."""
    for path in parts:
        count = _PART_OF.search(path.name)
        if count and int(count[1]) != len(parts):
            raise DataError(
                f"{path}: is one of {int(count[1])} parts by its name, but there are {len(parts)}. Copy all of them."
            )


def _no_column(path: Path, number: int, wanted: str, row: Mapping[str, Any]) -> DataError:
    # of a parquet file only the columns that are wanted are read
    columns = parquet.read_schema(path).names if path.suffix == ".parquet" else list(row)
    advice = "Rename the one that is meant."
    if path.suffix == ".csv":
        advice += " In a csv, commas stand between columns, and the first line names them."
    return DataError(
        f"{path}: row {number}: no column {wanted}; it has {', '.join(columns)}. {advice}"
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from (row for _, row in json_objects(path))
        return
    kind = ".csv, with commas between columns" if path.suffix == ".csv" else path.suffix
    with reading(path, f"a table ({kind})"):
        yield from chain.from_iterable(batch.to_pylist() for batch in _batches(path))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    wanted = ("text", "title", "content", *LABELS)
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name in wanted]
            yield from file.iter_batches(ROWS_READ, columns=names)
        return
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            yield from ipc.open_stream(source)
        return
    texts = pa.schema([(name, pa.string()) for name in wanted])
    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, parse_options=parse) as reader:
        names = [name for name in reader.schema.names if name in wanted]
    # of other columns the first rows would say the type, which later ones need not have
    options = csv.ConvertOptions(
        column_types=texts, strings_can_be_null=False, include_columns=names
    )
    yield from csv.open_csv(path, parse_options=parse, convert_options=options)


def _string(path: Path, number: int, row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not is_whole(value):
        raise DataError(
            f"{path}: row {number}: {column} is {value!r}; expected a text of whole characters."
        )
    return value


def _labels(path: Path, number: int, row: Mapping[str, Any]) -> list[str]:
    column = next((name for name in LABELS if name in row), None)
    if column is None:
        raise _no_column(path, number, "labels", row)
    value = row[column]
    if path.suffix == ".csv":
        try:
            value = json.loads(value) if value.startswith("[") else value.split(SEPARATOR)
        except ValueError as error:
            raise DataError(
                f"{path}: row {number}: {column}: not a JSON list ({error})."
            ) from error
        value = [label.strip() if isinstance(label, str) else label for label in value]
    labels = value if isinstance(value, list) else [value]
    wrong = [x for x in labels if type(x) not in (str, int) or not is_whole(str(x))]
    if wrong:
        raise DataError(
            f"{path}: row {number}: {column}: {wrong[0]!r} is no label; give names or whole numbers."
        )
    return [str(label) for label in labels if label != ""]
