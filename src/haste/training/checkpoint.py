"""All that a run needs to go on, in one file that is replaced whole."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from haste.config import RunConfig
from haste.files import atomic
from haste.model import Model, copy_into

log = logging.getLogger(__name__)

FILE = "state.safetensors"
Optimizers = list[torch.optim.Optimizer]


@dataclass
class Progress:
    """Where a run stands. Random numbers are functions of (seed, step), so none are kept."""

    step: int = 0
    """steps done"""
    loss: float = 0.0
    """sum of the loss over the documents of the epoch so far"""
    documents: int = 0
    """documents of the epoch so far"""
    rewired: int = 0
    """slots moved in the epoch so far"""
    seconds: float = 0.0
    """of training so far"""
    epoch_seconds: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def save(
    folder: Path, config: RunConfig, model: Model, optimizers: Optimizers, progress: Progress
) -> None:
    """Replace the checkpoint in `folder` by the present state."""
    tensors = model.tensors(momenta=True)
    scalars: dict[str, Any] = {}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                key = f"optimizer{number}.{index}.{name}"
                if isinstance(value, Tensor):
                    tensors[key] = value
                else:
                    scalars[key] = value
    header = {
        "config": fingerprint(config),
        "progress": json.dumps(asdict(progress)),
        "scalars": json.dumps(scalars),
    }
    with atomic(folder / FILE) as temporary:
        own = {name: value.detach().contiguous() for name, value in tensors.items()}
        save_file(own, temporary, metadata=header)


def load(folder: Path, config: RunConfig, model: Model, optimizers: Optimizers) -> Progress | None:
    """Restore the state in `folder`, in place; None when there is none of this configuration.

    A damaged checkpoint, or one of another configuration, is reported and left out of account.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            header = stored.metadata()
            if header.get("config") != fingerprint(config):
                log.warning("%s: is of another configuration; starting anew", path)
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        log.warning("%s: cannot be read (%s); starting anew", path, error)
        return None
    wanted = model.tensors(momenta=True)
    copy_into(wanted, {name: tensors.pop(name) for name in wanted})
    entries = {**tensors, **json.loads(header["scalars"])}
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Any]] = {}
        for key, value in entries.items():
            owner, index, name = key.split(".", 2)
            if owner == f"optimizer{number}":
                state.setdefault(int(index), {})[name] = value
        content = optimizer.state_dict()
        optimizer.load_state_dict({**content, "state": state})
    return Progress(**json.loads(header["progress"]))


def discard(folder: Path) -> None:
    """Remove the checkpoint of a finished run."""
    (folder / FILE).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def fingerprint(config: RunConfig) -> str:
    """A digest of all settings of a run that decide its numbers."""
    value = config.as_dict()
    for key in ("checkpoint_minutes", "threads"):
        value["training"].pop(key)
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
