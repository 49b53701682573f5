"""Finished runs. A run's results name the settings and inputs that it was trained from; who reads results compares
these with the present ones, so that results of other settings or data are not mistaken for those of this run.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from haste.checksums import FILE_TIMES, SEAL, file_state, file_sum, read_description
from haste.config import InputsConfig, RunConfig, read_run
from haste.errors import ConfigError, DataError, HasteError
from haste.files import read_yaml, reading
from haste.former_names import as_first_written, first_file_name
from haste.grid import GridConfig, RunKey
from haste.labels.order import LabelOrder
from haste.paths import CorpusDir, RunDir, TokenDir
from haste.presets import method

IDENTITY = "run"
"""key of resources.json: `config`, the settings that decide a run's results, and `inputs`, the digest of
what it read. Settings and not their digest: a setting that is added later has the default that stands for
what there was before, which a digest could not say."""
_NO_MATTER = ("checkpoint_minutes", "threads", "tensorboard")
"""settings of `training` that decide no number"""
_OF_ONE_MACHINE = (SEAL, FILE_TIMES)
"""keys of corpus.json and tokens.json that say nothing of what is in the files"""


def run_dir(grid: GridConfig, key: RunKey) -> RunDir:
    """The folder of a run of the grid."""
    return grid.layout.run(key.dataset, key.method, key.variant, key.seed)


def deciding_settings(config: RunConfig) -> dict[str, Any]:
    """All settings of a run that decide its results."""
    value = config.as_dict()
    for key in _NO_MATTER:
        value["training"].pop(key)
    return value


def fingerprint(config: RunConfig) -> str:
    """A digest of all settings of a run that decide its results."""
    return _sha256(deciding_settings(config))


def identity(config: RunConfig, inputs: str | None) -> dict[str, Any]:
    """What a run's results say of what they were trained from, see IDENTITY; `inputs`: its `input_digest`."""
    return {"config": deciding_settings(config), "inputs": inputs}


def input_files(inputs: InputsConfig) -> dict[str, list[Path]] | None:
    """The files that say what a run reads: descriptions of corpus and tokens, the model, orders of labels;
    None where one of them is not there."""
    model = Path(inputs.model)
    weights = sorted(model.glob("*.safetensors"))
    files = {
        "corpus": [CorpusDir(Path(inputs.corpus)).info],
        "tokens": [TokenDir(Path(inputs.tokens)).info],
        "model": [model / "config.json", *weights],
        "labels": [Path(path) for path in (inputs.order, inputs.clusters) if path],
    }
    whole = weights and all(path.is_file() for paths in files.values() for path in paths)
    return files if whole else None


def input_digest(inputs: InputsConfig, *, whole_orders: bool = False) -> str | None:
    """A digest of what a run reads, None where a part of it is not there.

    It is quick: of corpus and tokens it takes their descriptions, which have the digests of the files
    beside them, and the sizes of these. `whole_orders`: of orders of labels their files, as runs of earlier
    versions say, instead of what a run takes of them. Raises DataError for an order that is damaged.
    """
    files = input_files(inputs)
    if files is None:
        return None
    (corpus,), (tokens,) = files["corpus"], files["tokens"]
    return _sha256(
        {
            "corpus": _described(corpus, "haste corpus"),
            "tokens": _described(tokens, "haste tokenize"),
            "model": [file_sum(path) for path in files["model"]],
            "labels": [
                file_sum(path) if whole_orders else _order_digest(*file_state(path))
                for path in files["labels"]
            ],
        }
    )


@functools.lru_cache(maxsize=1024)
def _order_digest(path: Path, *_state: int) -> str:
    """Of an order of labels; one that has not changed since is not read again."""
    return LabelOrder.load(path).digest


def corpus_digest(corpus: CorpusDir) -> str | None:
    """As `input_digest`, of a run that reads nothing but a corpus."""
    return _sha256(_described(corpus.info, "haste corpus")) if corpus.info.is_file() else None


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _described(info: Path, made_by: str) -> dict[str, Any]:
    """What describes the files of a folder, and their sizes."""
    description = as_first_written(read_description(info, made_by))
    files = [path for end in ("parquet", "npz", "npy") for path in info.parent.glob(f"[!.]*.{end}")]
    # sorted, so that a present name counts where the former one is there too
    sizes = {first_file_name(path.name): path.stat().st_size for path in sorted(files)}
    return {
        "told": {k: v for k, v in description.items() if k not in _OF_ONE_MACHINE},
        "sizes": sizes,
    }


def is_done(run: RunDir, config: RunConfig) -> bool:
    """Whether a run has finished with just this configuration, from the inputs that are there now."""
    if not _is_whole(run):
        return False
    try:
        config_is = not differences(config, read_yaml(run.config))
        with reading(run.resources, "the resources of a run"):
            return config_is and stale(read_resources(run), config) is None
    except DataError:
        return False


def as_trained(run: RunDir, config: RunConfig) -> RunConfig:
    """`config`; where the run has finished with it, its settings that decide no number are those that it was
    trained with."""
    if not run.metrics.is_file():
        return config
    try:
        written = read_run(run.config).training
    except HasteError:
        return config
    kept = {name: getattr(written, name) for name in _NO_MATTER}
    trained = dataclasses.replace(config, training=dataclasses.replace(config.training, **kept))
    return trained if trained == config or is_done(run, config) else config


def is_finished(grid: GridConfig, key: RunKey) -> bool:
    """Whether a run of the grid has finished, as `is_done`; one of a linear method has no settings."""
    run = run_dir(grid, key)
    if is_trained(key):
        return is_done(run, grid.resolve(key))
    if not _is_whole(run):
        return False
    trained_from = read_resources(run).get(IDENTITY, {}).get("inputs")
    return trained_from in (None, present_inputs(grid, key))


def present_inputs(grid: GridConfig, key: RunKey) -> str | None:
    """The digest of what a run of the grid would read now, None where a part of it is not there."""
    if is_trained(key):
        return input_digest(grid.resolve(key).inputs)
    return corpus_digest(grid.layout.corpus(key.dataset))


def stale(resources: Mapping[str, Any], config: RunConfig) -> str | None:
    """How the results with these resources are not those of `config`; None where they are, or where they
    were written before results said what they are of."""
    recorded = resources.get(IDENTITY)
    if recorded is None:
        return None
    differ = differences(config, recorded["config"])
    if differ:
        return f"the results are of another configuration: {'; '.join(differ[:3])}"
    trained_from = recorded["inputs"]
    present = [input_digest(config.inputs, whole_orders=whole) for whole in (False, True)]
    if None not in (trained_from, *present) and trained_from not in present:
        return (
            "the results are of other inputs than are now in "
            f"{config.inputs.corpus}, {config.inputs.tokens}, {config.inputs.model} or its label order"
        )
    return None


def differences(config: RunConfig | Mapping[str, Any], written: Any) -> list[str]:
    """Settings that decide numbers and that parsed settings of a run say otherwise: "training.epochs is 2
    there and 3 here"; those that they are too old to have are at their defaults."""
    if isinstance(config, RunConfig):
        try:
            written = deciding_settings(RunConfig.from_dict(written))
        except ConfigError as error:
            return [str(error)]
        config = deciding_settings(config)
    old, new = dict(_leaves(written)), dict(_leaves(config))
    return [
        f"{key} is {old.get(key)} there and {new.get(key)} here"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def read_resources(run: RunDir) -> dict[str, Any]:
    """resources.json, or DataError."""
    return read_description(run.resources, made_by(run))


def made_by(run: RunDir, trained: bool = True) -> str:
    """The command that makes a run, finished or not."""
    return f"haste train --force {run.config}" if trained else f"haste baseline --out {run.root}"


def _is_whole(run: RunDir) -> bool:
    """Whether the results are there and nothing is left to do."""
    if not run.metrics.is_file() or has_checkpoint(run):
        return False
    try:
        return read_resources(run).get("completed") is True
    except DataError:
        return False


def has_checkpoint(run: RunDir) -> bool:
    """Whether a run was stopped, and would resume."""
    return any(run.checkpoint.glob("[!.]*"))


def is_trained(key: RunKey) -> bool:
    """Whether the run is one of an output layer, not of a linear method; raises ConfigError for an
    unknown method."""
    return method(key.method).kind == "trained"


def run_files(run: RunDir, key: RunKey) -> list[Path]:
    """What a finished run has for tables and figures.

    Linear methods have no history. Nothing reads the predictions of trials.
    """
    files = [run.config, run.metrics, run.resources]
    history = [run.history] if is_trained(key) else []
    predictions = [] if key.is_trial else [run.predictions]
    return [*files, *history, *predictions]


def results(run: RunDir) -> tuple[Path, ...]:
    """What a run leaves besides its configuration; the file by which it counts as finished first."""
    return (run.metrics, run.resources, run.predictions, run.history, run.model)


def remove_results(run: RunDir) -> None:
    """Remove the results in a run's folder, not its checkpoint: they would pass for those of the next."""
    for path in results(run):
        path.unlink(missing_ok=True)


def claim(
    run: RunDir, settings: RunConfig | Mapping[str, Any], *, force: bool | None = None
) -> None:
    """Refuse (ConfigError) a folder with files that this run would replace and that are not its own.

    `settings`: the run's, of a linear method what names it. With `force` another run may be
    replaced; None where there is no such option.
    """
    elsewhere = "Give another folder (--out)"
    if not run.config.exists():
        for path in results(run):
            if path.exists():
                raise ConfigError(
                    f"{path}: would be replaced, and no config.yaml beside it says that a run made it. "
                    f"{elsewhere}, or move it."
                )
        return
    written = read_yaml(run.config)
    if not isinstance(written, Mapping) or not {"dataset", "method", "seed"} <= set(written):
        raise ConfigError(
            f"{run.config}: would be replaced, and is not the configuration of a run. {elsewhere}."
        )
    differ = differences(settings, written)
    if differ and not force:
        raise ConfigError(
            f"{run.config}: is of another run ({'; '.join(differ[:3])}), which would be replaced. "
            f"{elsewhere}{'.' if force is None else ', or --force to train in its place.'}"
        )
    if differ:
        run.config.unlink()


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values of nested settings, by their path."""
    if not isinstance(value, Mapping):
        yield where, value
        return
    for key, part in value.items():
        yield from _leaves(part, f"{where}.{key}" if where else str(key))
