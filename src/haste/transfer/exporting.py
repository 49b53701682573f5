"""The finished runs of a grid in one zip, small enough to carry."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from haste import patterns
from haste.config import RunConfig
from haste.errors import DataError
from haste.files import atomic, read_json
from haste.grid import TRIAL_PREFIX, GridConfig, RunKey
from haste.metrics.runs import read_predictions
from haste.paths import CorpusDir, RunDir
from haste.resources import machine
from haste.runs import input_digest, is_done, run_dir
from haste.transfer.archive import MANIFEST, Manifest, RunEntry, run_members, trained_runs

log = logging.getLogger(__name__)

TOP = 10
"""predictions kept a document: tables, figures and the paired bootstrap read P@k, PSP@k and nDCG@k up to
k = 5 from them; R@10 and R@100 are in metrics.json"""


def export_results(grid: GridConfig, out: Path, top: int = TOP, only: Sequence[str] = ()) -> int:
    """Write the finished trained runs of a grid and their manifest to `out`; returns how many.

    `only`: patterns of dataset/method/variant/seedK or of one of the four, trials only for one that says
    `trial-`; without a pattern all runs, trials included. Each run's predictions are cut to the first `top`
    of a document, but kept whole where the data set takes reciprocal pairs out of them before they are
    measured: the next best move up then. Those of trials are left out, because nothing reads them; so are
    runs that lack a file or whose inputs are gone, with an error in the log. Raises DataError where no such
    run is finished, and ConfigError for a pattern that no run matches.
    """
    keys = trained_runs(grid)
    if only:
        keys = patterns.select(
            keys, only, "dataset/method/variant/seedK", what="run", counts=_is_asked_for
        )
    members: dict[str, str] = {}
    runs: list[RunEntry] = []
    with atomic(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in keys:
            run, config = run_dir(grid, key), grid.resolve(key)
            if not is_done(run, config):
                continue
            files = run_members(run, key)
            lacking = next((path for path in files.values() if not path.is_file()), None)
            if lacking is not None:
                log.error(
                    "%s: no such file, though the run is finished; the run is left out. Remove %s and train "
                    "it again.",
                    lacking,
                    run.metrics,
                )
                continue
            inputs = input_digest(config.inputs)
            if inputs is None:
                log.error(
                    "%s: its inputs are not all here, so no import could compare them; the run is left out",
                    key.name,
                )
                continue
            columns = 0
            for name, path in files.items():
                if path == run.predictions:
                    content, columns = _first_columns(run, None if _is_filtered(config) else top)
                else:
                    content = path.read_bytes()
                archive.writestr(name, content)
                members[name] = hashlib.sha256(content).hexdigest()
            runs.append(RunEntry(**asdict(key), inputs=inputs, columns=columns))
        if not runs:
            named = f" that --only {' '.join(only)} names" if only else ""
            raise DataError(
                f"{grid.layout.results}: no trained run of the grid{named} is finished; nothing to export."
            )
        manifest = Manifest(grid=grid.name, machine=machine(), members=members, runs=runs)
        archive.writestr(MANIFEST, manifest.model_dump_json(indent=2))
    return len(runs)


def _is_asked_for(key: RunKey, pattern: str) -> bool:
    return not key.is_trial or TRIAL_PREFIX in pattern


def _is_filtered(config: RunConfig) -> bool:
    """Whether pairs leave the predictions of a run before they are measured; so where nothing says it."""
    info = CorpusDir(Path(config.inputs.corpus)).info
    return not info.is_file() or bool(read_json(info).get("filtered", False))


def _first_columns(run: RunDir, width: int | None) -> tuple[bytes, int]:
    """A run's first `width` predictions a document (all where it is None) as .npz, and how many they are."""
    ids, scores = (array[:, :width] for array in read_predictions(run))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ids=ids, scores=scores)
    return buffer.getvalue(), ids.shape[1]
