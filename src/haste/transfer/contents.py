"""What the files of a finished run hold, checked before anything is put in the place of results."""

from __future__ import annotations

import csv
import io
import zipfile
from typing import Annotated, Any, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from haste.errors import DataError
from haste.former_names import renamed_columns
from haste.metrics.matching import check_order, check_predictions
from haste.metrics.names import HISTORY, METRICS, VALIDATED

DECILES = 10
MAX_PREDICTIONS = 1 << 28
"""where it is not known how many documents there are"""

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percentage = Annotated[float, Field(ge=0, le=100 + 1e-6)]
"""but for a rounding error"""
COLUMN = {name: Percentage | Literal[""] if name in VALIDATED else Amount for name in HISTORY}


class _Decile(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Percentage | None]
    decile: Amount
    labels: Amount


class Metrics(BaseModel):
    """metrics.json."""

    metrics: dict[str, Percentage]
    without_reciprocal_pairs: dict[str, Percentage | None] | None
    deciles: list[_Decile]
    backend: str
    documents: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_present_names(cls, value: Any) -> Any:
        return renamed_columns(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _is_whole(self) -> Metrics:
        if missing := [name for name in METRICS if name not in self.metrics]:
            raise ValueError(f"without {', '.join(missing)}")
        if len(self.deciles) not in (0, DECILES):
            raise ValueError(f"deciles: {len(self.deciles)} rows, not {DECILES}")
        return self


def _not_stopped(completed: bool) -> bool:
    if not completed:
        raise ValueError("the run was stopped before its end")
    return completed


class Resources(BaseModel):
    """resources.json of a run that was not stopped."""

    device: str
    seconds: dict[str, Amount]
    peak_bytes: dict[str, Amount]
    completed: Annotated[bool, AfterValidator(_not_stopped)]
    parameters: Amount | None = None
    layer_bytes: Amount | None = None
    state_bytes: Amount | None = None
    steps: Amount | None = None
    threads: Amount | None = None
    runs_at_once: Amount | None = None


def check_metrics(content: bytes) -> Metrics:
    """metrics.json with all metrics as percentages; raises ValidationError."""
    return Metrics.model_validate_json(content, strict=True)


def check_resources(content: bytes) -> None:
    """resources.json of a run that was not stopped; raises ValidationError."""
    Resources.model_validate_json(content, strict=True)


def check_history(content: bytes, epochs: int | None) -> None:
    """history.csv with one row for each of `epochs`, None for any number; raises DataError or ValidationError."""
    rows = list(csv.DictReader(io.StringIO(content.decode()), strict=True))
    if len(rows) != (epochs or max(len(rows), 1)):
        raise DataError(f"{len(rows)} of {epochs} epochs")
    for name, kind in COLUMN.items():
        values = [row.get(name) for row in rows]
        TypeAdapter(list[kind]).validate_python(values)  # type: ignore[valid-type]  # known when run


def check_predictions_file(
    content: bytes, columns: int, documents: int | None, labels: int | None
) -> None:
    """predictions.npz: `columns` label ids below `labels`, best first, for each of `documents`.

    None for a size that is not known. Raises DataError.
    """
    most = MAX_PREDICTIONS if documents is None else documents * columns
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # of int32 and float32, and two headers
        if sum(info.file_size for info in archive.infolist()) > 8 * most + 4096:
            raise DataError(f"unpacks to more than {most} predictions")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        ids, scores = arrays["ids"], arrays["scores"]
    if (ids.dtype, scores.dtype) != (np.int32, np.float32) or ids.shape[1:] != (columns,):
        raise DataError(
            f"ids {ids.dtype} {list(ids.shape)}, scores {scores.dtype} {list(scores.shape)}; expected "
            f"int32 and float32 [documents, {columns}]"
        )
    rows = len(ids) if documents is None else documents
    truth = sp.csr_matrix((rows, labels or np.iinfo(np.int32).max))
    check_predictions(ids, truth, columns)
    check_order(ids, scores)
