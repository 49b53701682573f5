"""Finished runs carried from one machine to another: a zip of their folders, without weights."""

from __future__ import annotations

import io
import logging
import os
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haste.errors import DataError
from haste.files import atomic, is_full, read_json, read_yaml, reading
from haste.grid import TRIAL_PREFIX, GridConfig, RunKey
from haste.metrics.runs import read_predictions
from haste.paths import CorpusDir, RunDir
from haste.report.runs import load_run
from haste.run_lock import locked
from haste.runs import (
    IDENTITY,
    differences,
    input_files,
    is_finished,
    is_trained,
    present_inputs,
    read_resources,
    remove_results,
    run_dir,
    run_files,
)
from haste.selection import select
from haste.training import checkpoint

log = logging.getLogger(__name__)

TOP = 100
"""predictions kept a document, from which the paired bootstrap takes R@100; with fewer its intervals of R@100
are over seeds alone"""
EXPORT = "haste export-results, and copy it whole"
MOST_UNPACKED = 100
"""bytes for each byte of an archive: what text of results does not reach by far"""
FORMER = "manifest.json"
"""of archives by earlier versions, which nothing reads"""


@dataclass(frozen=True)
class Imported:
    """Names of the runs of an archive."""

    taken: tuple[str, ...]
    kept: tuple[str, ...]
    """that were finished here already, with the same configuration"""


def export_results(grid: GridConfig, out: Path, top: int = TOP, only: Sequence[str] = ()) -> int:
    """Write the finished runs of a grid to the zip `out`; returns how many.

    `only`: patterns of dataset/method/variant/seedK or of one of the four, trials only for one that says
    `trial-`; without a pattern all runs, trials included. Each run's predictions are cut to the first `top`
    of a document, but kept whole where the data set takes reciprocal pairs out of them before they are
    measured: the next best move up then. Those of trials are left out, because nothing reads them; so are
    runs that lack a file, with an error in the log. Raises DataError where no such run is finished, and
    ConfigError for a pattern that no run matches.
    """
    keys = _runs(grid)
    if only:
        keys = select(keys, only, "dataset/method/variant/seedK", what="run", counts=_is_asked_for)
    exported = 0
    with (
        atomic(out) as temporary,
        # files may bear a time that zips cannot say, such as 1970
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
    ):
        for key in keys:
            run = run_dir(grid, key)
            if not is_finished(grid, key):
                continue
            lacking = next((path for path in run_files(run, key) if not path.is_file()), None)
            if lacking is not None:
                log.error(
                    "%s: no such file, though the run is finished; the run is left out. Remove %s and train "
                    "it again.",
                    lacking,
                    run.metrics,
                )
                continue
            for name, path in _members(run, key).items():
                if path == run.predictions and not _is_filtered(grid.layout.corpus(key.dataset)):
                    archive.writestr(name, _first_columns(run, top))
                else:
                    archive.write(path, name)
            exported += 1
        if not exported:
            named = f" that --only {' '.join(only)} names" if only else ""
            raise DataError(
                f"{grid.layout.results}: no run of the grid{named} is finished; nothing to export."
            )
    return exported


def import_results(
    archive_path: Path,
    grid: GridConfig,
    logs: Path = Path("logs"),
    *,
    without_data: bool = False,
) -> Imported:
    """Take the runs of a zip by `export_results` into the grid's folder of runs.

    Snakemake counts them as up to date afterwards, though no weights are there, and of trials no
    predictions; where it made other runs in their place, what it has to forget is a warning. `logs`: where
    the logs of such runs lie. Runs that are finished here are left alone. Raises DataError, before anything
    is written, for an archive that is damaged or has files of no run of the grid, runs that are not whole
    or whose configuration is not the grid's, and runs that were trained from other inputs than lie here
    or, unless `without_data`, that cannot be compared with them; RunLockedError, after the runs before it, for one
    that a process trains here.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = _unpack(archive_path, grid, Path(folder))
        unknown = [
            key.name for key, run in runs.items() if not _check(archive_path, grid, key, run)
        ]
        if unknown and not without_data:
            raise DataError(
                f"{archive_path}: {len(unknown)} runs ({unknown[0]}, ...) cannot be compared with their data, "
                "which is not all here, or which their results do not name. Nothing was taken; make the data "
                "first, by snakemake or by a copy of data/, or take them unseen: --without-data."
            )
        if unknown:
            log.warning(
                "%d runs (%s, ...) are taken without their data, so it was not compared; Snakemake trains "
                "them again once it has made it",
                len(unknown),
                unknown[0],
            )
        taken, kept, replaced = [], [], []
        for key, unpacked in runs.items():
            run = run_dir(grid, key)
            if is_finished(grid, key):
                log.info("%s: finished here already; left alone", key.name)
                kept.append(key.name)
                continue
            replaced += [str(run.config)] if run.config.exists() else []
            with locked(run.root):
                _take(unpacked, grid, key, logs)
            log.info("%s: taken", key.name)
            taken.append(key.name)
    if replaced:
        log.warning(
            "%d runs were started here before. Where Snakemake did that, let it forget how, or it trains "
            "them again: snakemake --cleanup-metadata %s",
            len(replaced),
            " ".join(replaced),
        )
    return Imported(tuple(taken), tuple(kept))


def _runs(grid: GridConfig) -> list[RunKey]:
    return [*grid.runs(), *grid.trial_runs()]


def _members(run: RunDir, key: RunKey) -> dict[str, Path]:
    """Name in an archive -> file: all that tables and figures read of a run."""
    return {f"runs/{key.name}/{path.name}": path for path in run_files(run, key)}


def _is_asked_for(key: RunKey, pattern: str) -> bool:
    return not key.is_trial or TRIAL_PREFIX in pattern


def _is_filtered(corpus: CorpusDir) -> bool:
    """Whether pairs leave predictions before they are measured; so where nothing says it."""
    return not corpus.info.is_file() or bool(read_json(corpus.info).get("filtered", False))


def _first_columns(run: RunDir, width: int) -> bytes:
    """A run's first `width` predictions a document as .npz."""
    ids, scores = (array[:, :width] for array in read_predictions(run))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ids=ids, scores=scores)
    return buffer.getvalue()


def _unpack(path: Path, grid: GridConfig, folder: Path) -> dict[RunKey, RunDir]:
    """The runs of an archive, each unpacked below `folder`."""
    with reading(path, "a zip by haste export-results", EXPORT), zipfile.ZipFile(path) as archive:
        size = sum(info.file_size for info in archive.infolist())
        if size > MOST_UNPACKED * path.stat().st_size:
            raise DataError(
                f"{path}: unpacks to {size:,} bytes, more than {MOST_UNPACKED} for each of its own, as no results "
                "do; nothing was taken."
            )
        names = {name for name in archive.namelist() if name != FORMER}
        runs: dict[RunKey, RunDir] = {}
        for key in _runs(grid):
            run = RunDir(folder / "runs" / key.name)
            members = _members(run, key).keys()
            if missing := sorted(members - names):
                if len(missing) < len(members):
                    raise DataError(
                        f"{path}: {missing[0]} is missing; nothing was taken. Make it again: {EXPORT}."
                    )
                continue
            # names that are in it and of the grid: none leads out of the folder
            try:
                archive.extractall(folder, members)
            except OSError as error:
                if not is_full(error):
                    raise
                raise DataError(
                    f"{folder}: the disk is full. Make room, or name another folder: TMPDIR."
                ) from error
            names -= members
            runs[key] = run
    if names:
        raise DataError(
            f"{path}: {min(names)} is of no run of the grid {grid.name}; nothing was taken. Give the grid that "
            "the archive was made from."
        )
    return runs


def _check(path: Path, grid: GridConfig, key: RunKey, run: RunDir) -> bool:
    """Whether an unpacked run could be compared with the inputs that lie here.

    Raises DataError where it is not a whole run of the grid's configuration, or was trained from others.
    """
    settings = grid.resolve(key) if is_trained(key) else grid.run_settings(key)
    if differ := differences(settings, read_yaml(run.config)):
        raise DataError(
            f"{path}: the configuration of {key.name} is not what the grid {grid.name} says now: "
            f"{'; '.join(differ[:3])}. Nothing was taken; train with this grid, or import with the grid it was "
            "trained with."
        )
    try:
        metrics = load_run(run.root).metrics
        if wrong := [name for name, value in metrics.items() if not _is_percentage(value)]:
            raise DataError(
                f"{run.metrics}: {wrong[0]} is {metrics[wrong[0]]!r}, not a percentage."
            )
        with reading(run.resources, "the resources of a run"):
            recorded = read_resources(run).get(IDENTITY)
            read = recorded and recorded["inputs"]
        present = present_inputs(grid, key)
        # of a trained run `load_run` has said so
        if not is_trained(key) and None not in (read, present) and read != present:
            raise DataError(
                f"{run.resources}: the results are of another corpus than is now in "
                f"{grid.layout.corpus(key.dataset).root}."
            )
    except DataError as error:
        what = str(error).replace(f"{run.root}{os.sep}", "")
        raise DataError(f"{path}: {key.name}: {what} Nothing was taken.") from error
    return None not in (read, present)


def _is_percentage(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 100 + 1e-6  # but for a rounding error


def _take(unpacked: RunDir, grid: GridConfig, key: RunKey, logs: Path) -> None:
    """Put a run into its folder; metrics.json, by which it counts as finished, last."""
    run = run_dir(grid, key)
    # weights and a checkpoint that lie there are of another run, and so is Snakemake's benchmark beside
    # the log: it takes a run to be as old as the oldest of its outputs
    remove_results(run)
    log_folder = logs / grid.name / key.dataset / key.method / key.variant
    (log_folder / f"seed{key.seed}.tsv").unlink(missing_ok=True)
    checkpoint.discard(run.checkpoint)
    files = sorted(run_files(run, key), key=lambda path: path == run.metrics)
    for path in files:
        with atomic(path) as temporary:
            temporary.write_bytes((unpacked.root / path.name).read_bytes())
    # Snakemake goes by times: no output may be older than an input, and the configuration is one; none may
    # be of the future either, where a table that is made now would be older than its runs
    read = [path.stat().st_mtime for path in _inputs(grid, key)]
    now = max([time.time(), *read])
    for path in files:
        stamp = now - 1 if path == run.config else now
        os.utime(path, (stamp, stamp))


def _inputs(grid: GridConfig, key: RunKey) -> list[Path]:
    """The files that say what a run reads, those that are there."""
    if is_trained(key):
        files: Mapping[str, list[Path]] = input_files(grid.resolve(key).inputs) or {}
        return [path for paths in files.values() for path in paths]
    info = grid.layout.corpus(key.dataset).info
    return [info] if info.is_file() else []
