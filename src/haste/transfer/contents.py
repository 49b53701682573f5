"""What the files of a finished run hold, checked before anything is put in the place of results."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from haste.errors import DataError
from haste.former_names import renamed_columns
from haste.metrics.matching import check_order, check_predictions
from haste.metrics.names import HISTORY, METRICS

DECILES = 10
ARRAYS = {"ids": np.dtype(np.int32), "scores": np.dtype(np.float32)}
"""of predictions.npz, each [documents, k]"""
MOST_PREDICTIONS = 1 << 28
"""where it is not known how many documents there are"""


def check_metrics(content: bytes) -> Mapping[str, Any]:
    """metrics.json with all metrics as percentages; raises DataError."""
    value = _mapping(
        renamed_columns(_mapping(_json(content))),
        ("metrics", "without_reciprocal_pairs", "deciles", "backend"),
    )
    _check_percentages(_mapping(value["metrics"], METRICS))
    if value["without_reciprocal_pairs"] is not None:
        _check_percentages(_mapping(value["without_reciprocal_pairs"]), empty=True)
    rows = value["deciles"]
    if not isinstance(rows, list) or len(rows) not in (0, DECILES):
        raise DataError(f"deciles: expected a list of {DECILES} rows")
    for row in rows:
        row = dict(_mapping(row, ("decile", "labels")))
        for name in ("decile", "labels"):
            _number(name, row.pop(name))
        _check_percentages(row, empty=True)
    if not isinstance(value["backend"], str):
        raise DataError(f"backend: {_shown(value['backend'])} is no name")
    return value


def check_resources(content: bytes) -> None:
    """resources.json of a run that was not stopped; raises DataError."""
    value = _mapping(_json(content), ("device", "seconds", "peak_bytes", "completed"))
    if value["completed"] is not True:
        raise DataError("the run was stopped before its end")
    if not isinstance(value["device"], str):
        raise DataError(f"device: {_shown(value['device'])} is no name")
    for part in ("seconds", "peak_bytes"):
        for name, each in _mapping(value[part]).items():
            _number(f"{part}.{name}", each)
    for name in ("parameters", "layer_bytes", "state_bytes", "steps", "threads", "runs_at_once"):
        if value.get(name) is not None:
            _number(name, value[name])


def check_history(content: bytes, epochs: int) -> None:
    """history.csv with one row for each of `epochs`; raises DataError."""
    reader = csv.DictReader(io.StringIO(content.decode()), strict=True)
    if missing := [name for name in HISTORY if name not in (reader.fieldnames or ())]:
        raise DataError(f"no column {', '.join(missing)}")
    rows = list(reader)
    if len(rows) != epochs:
        raise DataError(f"{len(rows)} of {epochs} epochs")
    for row in rows:
        for name in HISTORY:
            measured = "@" in name
            if not (measured and row[name] == ""):
                _number(name, _float(name, row[name]), high=100.0 if measured else math.inf)


def check_predictions_file(
    content: bytes, columns: int, documents: int | None, labels: int | None
) -> None:
    """predictions.npz: `columns` label ids below `labels`, best first, for each of `documents`.

    None for a size that is not known. Nothing is read before its header has been found to say what
    it should. Raises DataError.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if (names := sorted(archive.namelist())) != [f"{name}.npy" for name in sorted(ARRAYS)]:
            raise DataError(f"holds {_shown(names)} instead of ids and scores")
        for name, dtype in ARRAYS.items():
            with archive.open(f"{name}.npy") as file:
                shape, found = _header(file)
            fits = len(shape) == 2 and shape[1] == columns and documents in (None, shape[0])
            if (
                found != dtype
                or not fits
                or (math.prod(shape) > MOST_PREDICTIONS and not documents)
            ):
                wanted = f"{'documents' if documents is None else documents}, {columns}"
                raise DataError(f"{name}: {found} {list(shape)}, expected {dtype} [{wanted}]")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        ids, scores = arrays["ids"], arrays["scores"]
    truth = sp.csr_matrix((len(ids), labels or np.iinfo(np.int32).max))
    check_predictions(ids, truth, columns)
    check_order(ids, scores)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype that an .npy file says it has."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = read[version](file)
    return shape, dtype


def _json(content: bytes) -> Any:
    return json.loads(content.decode())


def _mapping(value: Any, keys: Iterable[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"expected a mapping, got {_shown(value)}")
    if missing := [key for key in keys if key not in value]:
        raise DataError(f"without {', '.join(missing)}")
    return value


def _check_percentages(values: Mapping[str, Any], *, empty: bool = False) -> None:
    for name, value in values.items():
        if not (empty and value is None):
            _number(name, value, high=100.0)


def _number(name: str, value: Any, high: float = math.inf) -> None:
    """Refuse what is no finite number from 0 to `high`, but for a rounding error."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not known or not 0 <= value <= high + 1e-6:
        raise DataError(f"{name}: {_shown(value)} is no number from 0 to {high:g}")


def _float(name: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise DataError(f"{name}: {_shown(text)} is no number") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
