"""Results of another machine taken into a grid, once they are found to be of its runs and its data."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haste.errors import DataError
from haste.files import atomic
from haste.fleet.archive import (
    AGAIN,
    Manifest,
    member_name,
    opened,
    parse,
    read_manifest,
    run_members,
)
from haste.fleet.digests import MISSING, InputDigests, input_files
from haste.fleet.state import clear, is_done, log_path, run_dir
from haste.fleet.worklist import Task
from haste.grid import GridConfig, RunKey
from haste.strict_yaml import parse_yaml
from haste.training import checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """Names of the runs of an archive."""

    taken: tuple[str, ...]
    kept: tuple[str, ...]
    """that were finished here already, with the same configuration"""


def import_results(archive_path: Path, grid: GridConfig, logs: Path = Path("logs")) -> Imported:
    """Take the runs of a zip by `export_results` into the grid's folder of runs.

    Snakemake counts them as up to date afterwards, though no weights are there, and of trials no
    predictions; where it made other runs in their place, what it has to forget is a warning. `logs`: where
    the logs of such runs lie. Runs that are finished here are left alone. Raises DataError, before anything
    is written, for an archive that is damaged or has names outside the layout, runs whose configuration is
    not the grid's, and runs that were trained from other inputs than lie here; where these are not here,
    that they were not compared is a warning.
    """
    with opened(archive_path) as archive:
        manifest = read_manifest(archive, archive_path, grid)
        for key in manifest.runs:
            _check_run(archive, archive_path, grid, key)
        _check_inputs(archive_path, grid, manifest)
        taken, kept, replaced = [], [], []
        for key in manifest.runs:
            name = Task(key, "").name
            if is_done(run_dir(grid, key), grid.resolve(key)):
                log.info("%s: finished here already; left alone", name)
                kept.append(name)
            else:
                config = run_dir(grid, key).config
                replaced += [str(config)] if config.exists() else []
                _take(archive, grid, key, logs)
                log.info("%s: taken", name)
                taken.append(name)
    if replaced:
        log.warning(
            "%d runs were started here before. Where Snakemake did that, let it forget how, or it trains "
            "them again: snakemake --cleanup-metadata %s",
            len(replaced),
            " ".join(replaced),
        )
    return Imported(tuple(taken), tuple(kept))


def _check_run(archive: zipfile.ZipFile, path: Path, grid: GridConfig, key: RunKey) -> None:
    """Refuse a run that is not finished, or not with the configuration that the grid has for it."""
    name = member_name(key, "config.yaml")
    config = parse(archive, path, name, lambda content: parse_yaml(content, name))
    wanted = grid.resolve(key)
    if not wanted.is_of(config):
        expected = wanted.as_dict()
        there, here = dict(_leaves(config)), dict(_leaves(expected))
        differ = sorted(k for k in {*there, *here} if there.get(k) != here.get(k))
        told = "; ".join(f"{k} is {there.get(k)} there and {here.get(k)} here" for k in differ[:3])
        raise DataError(
            f"{path}: {name} is not what the grid {grid.name} says now: {told}. Nothing was taken; train "
            "with this grid, or import with the grid it was trained with."
        )
    resources = parse(archive, path, member_name(key, "resources.json"), json.loads)
    if not isinstance(resources, Mapping) or resources.get("completed") is not True:
        raise DataError(
            f"{path}: {member_name(key, 'resources.json')} is of a run that was stopped before its end; "
            f"nothing was taken. {AGAIN}"
        )


def _check_inputs(path: Path, grid: GridConfig, manifest: Manifest) -> None:
    """Refuse runs that were trained from other files than lie here."""
    digests, unknown = InputDigests(), []
    for key, entry in manifest.runs.items():
        inputs = grid.resolve(key).inputs
        here = digests.of(inputs)
        if MISSING in (here, entry.inputs):
            unknown.append(Task(key, "").name)
        elif here != entry.inputs:
            raise DataError(
                f"{path}: {Task(key, '').name} was trained from other inputs than those in "
                f"{inputs.corpus}, {inputs.tokens}, {inputs.model} or its label order ({entry.inputs[:12]} "
                f"there, {here[:12]} here). Nothing was taken; copy the data of one machine to the other "
                "and train again, or import where that data lies."
            )
    if unknown:
        log.warning(
            "%d runs (%s, ...): not all inputs are here, so it could not be compared what they were "
            "trained from; Snakemake trains them again once it has made these",
            len(unknown),
            unknown[0],
        )


def _take(archive: zipfile.ZipFile, grid: GridConfig, key: RunKey, logs: Path) -> None:
    """Put a run into its folder; metrics.json, by which it counts as finished, last."""
    run, config = run_dir(grid, key), grid.resolve(key)
    # weights and a checkpoint that lie there are of another run
    clear(run, log_path(grid, key, logs))
    checkpoint.discard(run.checkpoint)
    files = run_members(run, key)
    for name in sorted(files, key=lambda name: files[name] == run.metrics):
        with (
            archive.open(name) as source,
            atomic(files[name]) as temporary,
            temporary.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
    # Snakemake goes by times: outputs must be newer than all inputs, and the configuration is one
    inputs = input_files(config.inputs) or {}
    now = max([time.time(), *(each.stat().st_mtime + 1 for each in inputs.values())])
    for path in files.values():
        stamp = now - 1 if path == run.config else now
        os.utime(path, (stamp, stamp))


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values of nested settings, by their path."""
    if not isinstance(value, Mapping):
        yield where or "it", value
        return
    for key, each in value.items():
        yield from _leaves(each, f"{where}.{key}" if where else str(key))
