"""Results of another machine taken into a grid, once they are found to be of its runs and its data."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from haste.config import RunConfig
from haste.errors import DataError
from haste.files import atomic, read_json, reading
from haste.grid import GridConfig, RunKey
from haste.paths import CorpusDir
from haste.runs import differences, is_done, remove_results, run_dir
from haste.strict_yaml import parse_yaml
from haste.training import checkpoint
from haste.transfer import contents
from haste.transfer.archive import (
    AGAIN,
    Manifest,
    MemberReader,
    RunEntry,
    member_name,
    opened,
    read_manifest,
    run_members,
)
from haste.transfer.digests import MISSING, InputDigests, input_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """Names of the runs of an archive."""

    taken: tuple[str, ...]
    kept: tuple[str, ...]
    """that were finished here already, with the same configuration"""


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
    is written, for an archive that is damaged or has names outside the layout, contents that no training
    writes, runs whose configuration is not the grid's, and runs that were trained from other inputs than
    lie here or, unless `without_data`, whose inputs are not here.
    """
    with opened(archive_path) as archive:
        manifest = read_manifest(archive, archive_path, grid)
        read = MemberReader(archive, archive_path, manifest)
        _check_inputs(archive_path, grid, manifest, without_data=without_data)
        for key, entry in manifest.runs.items():
            _check_run(read, grid, key, entry)
        read = MemberReader(archive, archive_path, manifest)
        taken, kept, replaced = [], [], []
        for key in manifest.runs:
            if is_done(run_dir(grid, key), grid.resolve(key)):
                log.info("%s: finished here already; left alone", key.name)
                kept.append(key.name)
            else:
                config = run_dir(grid, key).config
                replaced += [str(config)] if config.exists() else []
                _take(read, grid, key, logs)
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


def _check_run(read: MemberReader, grid: GridConfig, key: RunKey, entry: RunEntry) -> None:
    """Refuse a run that is not of the grid's configuration, not finished, or whose files hold what no
    training writes."""
    config = grid.resolve(key)
    _check_config(read, grid, key, config)
    with _checked(read, key, "resources.json") as content:
        contents.check_resources(content)
    with _checked(read, key, "history.csv") as content:
        contents.check_history(content, config.training.epochs)
    with _checked(read, key, "metrics.json") as content:
        metrics = contents.check_metrics(content)
    if key.is_trial:
        return
    documents, labels = metrics.get("documents"), None
    info = CorpusDir(Path(config.inputs.corpus)).info
    if info.is_file():
        with reading(info, "the description of a corpus", "haste corpus"):
            said = read_json(info)
            documents = int(said["documents"][config.training.evaluate])
            labels = int(said["n_labels"]) + int(said["n_extra"])
    with _checked(read, key, "predictions.npz") as content:
        contents.check_predictions_file(content, entry.columns, documents, labels)


def _check_config(read: MemberReader, grid: GridConfig, key: RunKey, config: RunConfig) -> None:
    name = member_name(key, "config.yaml")
    written = parse_yaml(read(name), f"{read.path}: {name}")
    if differ := differences(config, written):
        raise DataError(
            f"{read.path}: {name} is not what the grid {grid.name} says now: {'; '.join(differ[:3])}. Nothing "
            "was taken; train with this grid, or import with the grid it was trained with."
        )


@contextmanager
def _checked(read: MemberReader, key: RunKey, file: str) -> Iterator[bytes]:
    """The content of a run's file; what goes wrong with it is a DataError that names it."""
    name = member_name(key, file)
    content = read(name)
    try:
        yield content
    except Exception as error:
        problem = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        raise DataError(
            f"{read.path}: {name} is not what training writes ({problem.rstrip('.')}); nothing was taken. "
            f"{AGAIN}"
        ) from error


def _check_inputs(path: Path, grid: GridConfig, manifest: Manifest, *, without_data: bool) -> None:
    """Refuse runs that were trained from other files than lie here."""
    digests, unknown = InputDigests(), []
    for key, entry in manifest.runs.items():
        inputs = grid.resolve(key).inputs
        here = digests.of(inputs)
        if here == MISSING:
            unknown.append(key.name)
        elif here != entry.inputs:
            raise DataError(
                f"{path}: {key.name} was trained from other inputs than those in "
                f"{inputs.corpus}, {inputs.tokens}, {inputs.model} or its label order ({entry.inputs[:12]} "
                f"there, {here[:12]} here). Nothing was taken; copy the data of one machine to the other "
                "and train again, or import where that data lies."
            )
    if unknown and not without_data:
        raise DataError(
            f"{path}: {len(unknown)} runs ({unknown[0]}, ...) cannot be compared with their data, which is "
            "not all here. Nothing was taken; make the data first, by snakemake or by a copy of data/, or "
            "take them unseen: --without-data."
        )
    if unknown:
        log.warning(
            "%d runs (%s, ...) are taken without their data, so it was not compared; Snakemake trains them "
            "again once it has made it",
            len(unknown),
            unknown[0],
        )


def _take(read: MemberReader, grid: GridConfig, key: RunKey, logs: Path) -> None:
    """Put a run into its folder; metrics.json, by which it counts as finished, last."""
    run, config = run_dir(grid, key), grid.resolve(key)
    # weights and a checkpoint that lie there are of another run, and so is Snakemake's benchmark beside
    # the log: it takes a run to be as old as the oldest of its outputs
    remove_results(run)
    log_folder = logs / grid.name / key.dataset / key.method / key.variant
    (log_folder / f"seed{key.seed}.tsv").unlink(missing_ok=True)
    checkpoint.discard(run.checkpoint)
    files = run_members(run, key)
    for name in sorted(files, key=lambda name: files[name] == run.metrics):
        with atomic(files[name]) as temporary:
            temporary.write_bytes(read(name))
    # Snakemake goes by times: no output may be older than an input, and the configuration is one; none may
    # be of the future either, where a table that is made now would be older than its runs
    inputs = input_files(config.inputs) or {}
    now = max([time.time(), *(each.stat().st_mtime for each in inputs.values())])
    for path in files.values():
        stamp = now - 1 if path == run.config else now
        os.utime(path, (stamp, stamp))
