"""The table of the scale benchmark: a training step's time and memory at the paper's sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haste.errors import DataError
from haste.files import read_json
from haste.former_names import renamed_columns
from haste.presets import methods
from haste.reporting.benchmarks import read_benchmark
from haste.reporting.needs import SCALE_MACHINE
from haste.reporting.published import PEAK_MEMORY, SECONDS_AN_EPOCH, Published
from haste.reporting.table import Cell, Column, Table

TITLE = "Time and memory of training at the paper's sizes"
NEEDED = ("dataset", "method", "preset", "labels", "seconds_per_step", "peak_allocated_gib")
"""columns of scale.csv that are relied upon; there are more, see `benchmarks.scale.COLUMNS`"""
SWEEP = "sweep"
"""in place of a data set's name, rows of growing label counts"""
SPEED, MEMORY = "speed", "memory"
"""the presets"""
GIB = 2**30


@dataclass(frozen=True)
class ScaleResults:
    """The scale benchmark of one device."""

    device: str
    """name of its folder"""
    rows: tuple[Mapping[str, Cell], ...]
    machine: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> ScaleResults:
        """From a scale.csv and what lies beside it; raises DataError."""
        rows = [renamed_columns(row) for row in read_benchmark(path)]
        missing = [name for name in NEEDED if name not in rows[0]]
        if missing:
            raise DataError(
                f"{path}: no column {', '.join(missing)}. Run the benchmark again: haste bench scale"
            )
        machine = path.with_name(SCALE_MACHINE)
        return cls(path.parent.name, tuple(rows), read_json(machine) if machine.exists() else {})

    def datasets(self) -> list[str]:
        """Those that were measured, in the order of the file."""
        names = dict.fromkeys(str(row["dataset"]) for row in self.rows)
        return [name for name in names if name != SWEEP]

    def value(self, dataset: str, method: str, preset: str, column: str) -> float | None:
        """A number of a row; None where there is none."""
        for row in self.rows:
            if (row["dataset"], row["method"], row["preset"]) == (dataset, method, preset):
                found = row.get(column)
                return None if found is None else float(found)
        return None

    def note(self) -> str:
        """Machine and versions in a sentence."""
        found = self.machine
        words = [str(found[key]) for key in ("gpu", "date") if found.get(key)]
        words += [f"{key} {found[key]}" for key in ("cuda", "torch", "triton") if found.get(key)]
        if found.get("commit"):
            words.append(f"commit {str(found['commit'])[:12]}")
        return f"{self.device}: {', '.join(words) or 'machine not recorded'}."


def scale_table(devices: Sequence[ScaleResults], published: Published) -> Table:
    """One row a data set, method and preset, and the papers' numbers beside ours."""
    columns = (
        Column("device", "Device"),
        Column("dataset", "Data set", once=True),
        Column("method", "Method"),
        Column("preset", "Preset"),
        Column("labels", "Labels", digits=0),
        Column("batch", "Batch", digits=0),
        Column("tokens_a_step", "Tokens a step", digits=0),
        Column("seconds_per_step", "Step (ms)", digits=2, scale=1e-3),
        Column("encoder_seconds", "encoder", digits=2, scale=1e-3),
        Column("layer_seconds", "output layer", digits=2, scale=1e-3),
        Column("rest_seconds", "rest", digits=2, scale=1e-3),
        Column("layer_share", "Layer's share (%)", scale=0.01),
        Column("busy_share", "GPU busy (%)", scale=0.01),
        Column("waits_a_step", "Waits a step", digits=0),
        Column("epoch_minutes", "Epoch (min)", digits=2),
        Column("paper_epoch_minutes", "Epoch (paper, A100)", digits=2),
        Column("peak_allocated_gib", "Peak (GiB)", digits=2),
        Column("peak_reserved_gib", "reserved", digits=2),
        Column("layer_gib", "layer", digits=2),
        Column("topk_seconds", "Top 100 of 256 (ms)", digits=1, scale=1e-3),
        Column("paper_peak_gib", "Peak (paper)", digits=2),
        Column("note", "Note"),
    )
    rows = [
        {
            "device": each.device,
            **{column.key: row.get(column.key) for column in columns[1:]},
            "method": _title(str(row["method"])),
            **_of_the_paper(row, published),
        }
        for each in devices
        for row in each.rows
    ]
    notes = (
        *(each.note() for each in devices),
        "Encoders have the shape of the paper's and random weights; lengths are drawn from a lognormal "
        "distribution about the data set's average, cut to the paper's length, and labels by Zipf's law "
        "with the published number a document. Hyper-parameters are those of workflow/configs/paper.yaml.",
        "Preset speed: batches of documents of like length, rounded up to one of eight lengths, all "
        "activations kept, steps replayed as CUDA graphs. Preset memory: "
        "activations of the encoder are computed again in the backward pass, and its weights updated in it.",
        "A step's parts are by the GPU's own clock, and the rest is what is left of the step; an epoch is "
        "its steps times the step. Peak: the most memory allocated, and reserved, while training, rewiring "
        "included. GPU busy: time of kernels over time of the step. Waits: how often the host waits for the "
        "GPU in one. Top 100 of 256: the best labels of 256 documents, from their features.",
        "Spartex is measured with its auxiliary loss, as at the start of a run. Rows of the sweep have the "
        "hyper-parameters of LF-Paper2Keywords-8.6M, the preset memory and other numbers of labels.",
    )
    return Table(TITLE, columns, tuple(rows), notes, section="device")


def _of_the_paper(row: Mapping[str, Cell], published: Published) -> dict[str, Cell]:
    """Memory and time that a method's paper has for a data set; a word where it has a word."""
    row_of_method = methods().get(str(row["method"]))
    if row_of_method is None or row_of_method.published_as is None:
        return {}
    paper, name = row_of_method.published_as
    found: dict[str, Cell] = {}
    for key, metric, unit in (
        ("paper_peak_gib", PEAK_MEMORY, GIB),
        ("paper_epoch_minutes", SECONDS_AN_EPOCH, 60),
    ):
        number = published.find(paper, str(row["dataset"]), name, metric)
        if number is not None:
            found[key] = number.text if number.value is None else number.value / unit
    return found


def _title(name: str) -> str:
    row = methods().get(name)
    return row.title if row else name
