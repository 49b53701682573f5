"""Results of another machine taken into a grid, once they are found to be of its runs and its data."""

from __future__ import annotations

import json
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
from haste.runs import (
    IDENTITY,
    differences,
    input_digest,
    input_files,
    is_done,
    remove_results,
    run_dir,
)
from haste.strict_yaml import parse_yaml
from haste.training import checkpoint
from haste.transfer import contents
from haste.transfer.archive import (
    AGAIN,
    Archive,
    RunEntry,
    described,
    member_name,
    opened,
    run_members,
)

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
    lie here or, unless `without_data`, that cannot be compared: their inputs are not here, or the archive
    has only a digest of them that is not computed any more (format 1, and results that have none).
    """
    with opened(archive_path, grid) as archive:
        _check_inputs(archive, grid, without_data=without_data)
        for run in archive.manifest.runs:
            _check_run(archive, grid, run)
        taken, kept, replaced = [], [], []
        for key in (run.key for run in archive.manifest.runs):
            if is_done(run_dir(grid, key), grid.resolve(key)):
                log.info("%s: finished here already; left alone", key.name)
                kept.append(key.name)
            else:
                config = run_dir(grid, key).config
                replaced += [str(config)] if config.exists() else []
                _take(archive, grid, key, logs)
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


def _check_run(archive: Archive, grid: GridConfig, run: RunEntry) -> None:
    """Refuse a run that is not of the grid's configuration, not finished, or whose files hold what no
    training writes."""
    key, config = run.key, grid.resolve(run.key)
    _check_config(archive, grid, key, config)
    with _checked(archive, key, "resources.json") as content:
        contents.check_resources(content)
    with _checked(archive, key, "history.csv") as content:
        contents.check_history(content, config.training.fixed_epochs)
    with _checked(archive, key, "metrics.json") as content:
        documents = contents.check_metrics(content).documents
    if key.is_trial:
        return
    labels = None
    info = CorpusDir(Path(config.inputs.corpus)).info
    if info.is_file():
        with reading(info, "the description of a corpus", "haste corpus"):
            corpus = read_json(info)
            documents = int(corpus["documents"][config.training.evaluate])
            labels = int(corpus["n_labels"]) + int(corpus["n_extra"])
    with _checked(archive, key, "predictions.npz") as content:
        contents.check_predictions_file(content, run.columns, documents, labels)


def _check_config(archive: Archive, grid: GridConfig, key: RunKey, config: RunConfig) -> None:
    name = member_name(key, "config.yaml")
    written = parse_yaml(archive.read(name), f"{archive.path}: {name}")
    if differ := differences(config, written):
        raise DataError(
            f"{archive.path}: {name} is not what the grid {grid.name} says now: {'; '.join(differ[:3])}. "
            "Nothing was taken; train with this grid, or import with the grid it was trained with."
        )


@contextmanager
def _checked(archive: Archive, key: RunKey, file: str) -> Iterator[bytes]:
    """The content of a run's file; what goes wrong with it is a DataError that names it."""
    name = member_name(key, file)
    content = archive.read(name)
    try:
        yield content
    except Exception as error:
        raise DataError(
            f"{archive.path}: {name} is not what training writes ({described(error)}); nothing was taken. "
            f"{AGAIN}"
        ) from error


def _check_inputs(archive: Archive, grid: GridConfig, *, without_data: bool) -> None:
    """Refuse runs that were trained from other files than lie here."""
    unknown = []
    for run in archive.manifest.runs:
        inputs = grid.resolve(run.key).inputs
        digest, recorded = input_digest(inputs), _recorded_inputs(archive, run)
        if digest is None or recorded is None:
            unknown.append(run.key.name)
        elif digest != recorded:
            raise DataError(
                f"{archive.path}: {run.key.name} was trained from other inputs than those in "
                f"{inputs.corpus}, {inputs.tokens}, {inputs.model} or its label order ({recorded[:12]} "
                f"there, {digest[:12]} here). Nothing was taken; copy the data of one machine to the other "
                "and train again, or import where that data lies."
            )
    if unknown and not without_data:
        former = archive.manifest.format == 1
        reason = "because an older version wrote the archive" if former else "which is not all here"
        mend = (
            "export again" if former else "make the data first, by snakemake or by a copy of data/"
        )
        raise DataError(
            f"{archive.path}: {len(unknown)} runs ({unknown[0]}, ...) cannot be compared with their data, "
            f"{reason}. Nothing was taken; {mend}, or take them unseen: --without-data."
        )
    if unknown:
        log.warning(
            "%d runs (%s, ...) are taken without their data, so it was not compared; Snakemake trains them "
            "again once it has made it",
            len(unknown),
            unknown[0],
        )


def _recorded_inputs(archive: Archive, run: RunEntry) -> str | None:
    """The digest of what a run was trained from; None in archives of format 1 whose results do not say it."""
    if run.inputs is not None:
        return run.inputs
    with _checked(archive, run.key, "resources.json") as content:
        return json.loads(content).get(IDENTITY, {}).get("inputs")


def _take(archive: Archive, grid: GridConfig, key: RunKey, logs: Path) -> None:
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
            temporary.write_bytes(archive.read(name))
    # Snakemake goes by times: no output may be older than an input, and the configuration is one; none may
    # be of the future either, where a table that is made now would be older than its runs
    inputs = (input_files(config.inputs) or {}).values()
    now = max([time.time(), *(path.stat().st_mtime for paths in inputs for path in paths)])
    for path in files.values():
        stamp = now - 1 if path == run.config else now
        os.utime(path, (stamp, stamp))
