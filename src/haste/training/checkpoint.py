"""All that a run needs to resume, in one file that is replaced whole."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from haste.config import RunConfig
from haste.model import Model, check_fit, copy_into
from haste.runs import fingerprint
from haste.tensor_file import Blocks, load_tensors, save_tensors

log = logging.getLogger(__name__)

FILE = "state.safetensors"
BEST = "best.safetensors"
"""weights of the best evaluation, where training stops early"""
KERNEL_CHOICES = ("foreach", "triton")
"""of a group of parameters: which kernels its optimiser takes"""
Optimizers = list[torch.optim.Optimizer]


@dataclass
class Progress:
    """How far a run has come. Random numbers are functions of (seed, step), so none are kept."""

    step: int = 0
    """steps done"""
    loss: float = 0.0
    """sum of the loss over the documents of the epoch so far"""
    documents: int = 0
    """documents of the epoch so far"""
    rewired: int = 0
    """indices moved in the epoch so far"""
    seconds: float = 0.0
    """of training so far"""
    epoch_seconds: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def origin(config: RunConfig, inputs: str | None) -> dict[str, str]:
    """What a checkpoint of a run is of: digests of the settings that decide its numbers and of what it reads."""
    return {"config": fingerprint(config), "inputs": inputs or ""}


def save(
    folder: Path,
    of: Mapping[str, str],
    model: Model,
    optimizers: Optimizers,
    progress: Progress,
) -> None:
    """Replace the checkpoint in `folder` by the present state, that of one rank: any number of them resumes.

    `of`: the run's `origin` when it began, since inputs may be replaced while it trains.
    """
    tensors = model.whole_tensors(momenta=True)
    packed = [
        _pack(optimizer.state_dict(), f"optimizer{number}", tensors)
        for number, optimizer in enumerate(optimizers)
    ]
    header = {
        **of,
        "progress": json.dumps(asdict(progress)),
        "optimizers": json.dumps(packed),
    }
    save_tensors(folder / FILE if model.ranks.first else None, tensors, header)


def load(
    folder: Path, of: Mapping[str, str], model: Model, optimizers: Optimizers
) -> Progress | None:
    """Restore the state in `folder`, in place; None when there is none of this `origin`.

    A damaged checkpoint, or one of another configuration or of other inputs, is reported and left out of account.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    unused = [optimizer.state_dict() for optimizer in optimizers]
    try:
        tensors, header = load_tensors(path, need_digest=True, rows=model.row_ranges())
        # checkpoints by earlier versions do not say what their inputs were
        if header["config"] != of["config"] or header.get("inputs", of["inputs"]) != of["inputs"]:
            log.warning("%s: is of another configuration or of other inputs; starting anew", path)
            return None
        progress = Progress(**json.loads(header["progress"]))
        states = [_unpack(packed, tensors) for packed in json.loads(header["optimizers"])]
        targets = model.tensors(momenta=True)
        weights = {name: tensors[name] for name in targets}
        check_fit(targets, weights, path)
        for optimizer, state, built in zip(optimizers, states, unused, strict=True):
            optimizer.load_state_dict(state)
            for group, as_built in zip(optimizer.param_groups, built["param_groups"], strict=True):
                # how to compute is this device's, where the checkpoint may be another's
                group.update({key: as_built[key] for key in KERNEL_CHOICES if key in as_built})
    except Exception as error:
        log.warning("%s: cannot be read (%s: %s); starting anew", path, type(error).__name__, error)
        for optimizer, state in zip(optimizers, unused, strict=True):
            optimizer.load_state_dict(state)
        return None
    copy_into(targets, weights, path)
    return progress


def discard(folder: Path) -> None:
    """Remove the checkpoint of a finished run, and what killed saves left beside it."""
    for name in (FILE, BEST):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir():
        # the folder is one run's, so nothing else writes here; `.tmp` is of safetensors itself
        for left in (*folder.glob(f".{Path(FILE).stem}.*"), *folder.glob(".tmp*")):
            left.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _pack(value: Any, path: str, tensors: dict[str, Tensor | Blocks]) -> Any:
    """`value` (nested dicts and lists) as JSON with its tensors put into `tensors` by path.

    Dicts become lists of pairs: JSON would turn their integer keys into text.
    """
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[k, _pack(v, f"{path}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(v, f"{path}.{i}", tensors) for i, v in enumerate(value)]
    return value


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_pack`."""
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {k: _unpack(v, tensors) for k, v in value["dict"]}
    return value
