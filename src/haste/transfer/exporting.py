"""The finished runs of a grid in one zip, small enough to carry."""

from __future__ import annotations

import hashlib
import io
import logging
import stat
import zipfile
from collections.abc import Sequence
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
from haste.runs import fingerprint, is_done, run_dir
from haste.transfer.archive import MANIFEST, Manifest, RunEntry, run_members, trained_runs
from haste.transfer.digests import MISSING, InputDigests

log = logging.getLogger(__name__)

TOP = 10
"""predictions kept a document: tables, figures and the paired bootstrap read P@k, PSP@k and nDCG@k up to
k = 5 from them; R@10 and R@100 are in metrics.json"""


def export_results(grid: GridConfig, out: Path, top: int = TOP, only: Sequence[str] = ()) -> int:
    """Write the finished trained runs of a grid and their manifest to `out`; returns how many.

    `only`: patterns of dataset/method/variant/seedK or of one of the four, trials only for one that says
    `trial-`; without a pattern all runs, trials included. Each run's
    predictions are cut to the first `top` of a document, but kept whole where the data set takes
    reciprocal pairs out of them before they are measured: the next best move up then. Those of trials
    are left out, because nothing reads them; so are runs that lack a file or whose inputs are gone, with a
    word in the log. Raises
    DataError where no such run is finished, and ConfigError for a pattern that no run matches.
    """
    keys = trained_runs(grid)
    if only:
        keys = patterns.select(
            keys, only, "dataset/method/variant/seedK", what="run", counts=_is_asked_for
        )
    digests = InputDigests()
    members: dict[str, str] = {}
    runs: dict[RunKey, RunEntry] = {}
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
            inputs = digests.of(config.inputs)
            if inputs == MISSING:
                log.error(
                    "%s: its inputs are not all here, so no import could compare them; the run is left out",
                    key.name,
                )
                continue
            columns = 0
            for name, path in files.items():
                if path == run.predictions:
                    ids, scores = _cut(run, None if _filtered(config) else top)
                    content, columns = _npz(ids=ids, scores=scores), ids.shape[1]
                else:
                    content = path.read_bytes()
                archive.writestr(_info(name), content)
                members[name] = hashlib.sha256(content).hexdigest()
            runs[key] = RunEntry(fingerprint(config), inputs, columns)
        if not runs:
            named = f" that --only {' '.join(only)} names" if only else ""
            raise DataError(
                f"{grid.layout.results}: no trained run of the grid{named} is finished; nothing to export."
            )
        manifest = Manifest(grid.name, machine(), members, runs)
        archive.writestr(_info(MANIFEST), manifest.to_json())
    return len(runs)


def _is_asked_for(key: RunKey, pattern: str) -> bool:
    return not key.is_trial or TRIAL_PREFIX in pattern


def _info(name: str) -> zipfile.ZipInfo:
    """A plain file of an archive."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _filtered(config: RunConfig) -> bool:
    """Whether pairs leave the predictions of a run before they are measured; so where nothing says it."""
    info = CorpusDir(Path(config.inputs.corpus)).info
    return not info.is_file() or bool(read_json(info).get("filtered", False))


def _cut(run: RunDir, width: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Ids and scores of a run's first `width` predictions a document, of all where it is None."""
    ids, scores = read_predictions(run)
    return ids[:, :width], scores[:, :width]


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
