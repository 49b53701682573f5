"""Why a run cannot go on, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from haste.config import RunConfig
from haste.data.ragged import Ragged
from haste.errors import DataError, TrainingError
from haste.kernels.rounding import dequantize
from haste.kernels.state import FAN_INS
from haste.model import Model
from haste.training.optim import optimizer_bytes

GIB = 2**30
USABLE = 0.95
"""share of a GPU's memory that advice counts on; the rest goes to fragments and libraries"""
_LEAST_LENGTH = 4
"""of `encoder.max_len`"""
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": GIB}
_BLOCK = 1 << 24
"""values checked at once, which bounds the memory of the check"""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of a GPU's memory when it ran out."""

    total: int
    allocated: int
    layer: int
    """the output layer with its momenta"""
    outside: int
    """encoder, projection and their optimisers' state"""

    @classmethod
    def of(cls, model: Model, optimizers: Sequence[torch.optim.Optimizer]) -> MemoryUse:
        """Of a model on its device; without a GPU there is no memory to speak of."""
        on_gpu = model.device.type == "cuda"
        weights = [*model.encoder.parameters(), *model.projection.parameters()]
        return cls(
            torch.cuda.get_device_properties(model.device).total_memory if on_gpu else 0,
            torch.cuda.memory_allocated(model.device) if on_gpu else 0,
            model.layer.layer_bytes(),
            sum(weight.numel() * weight.element_size() for weight in weights)
            + optimizer_bytes(list(optimizers)),
        )


def out_of_memory(config: RunConfig, error: Exception, use: MemoryUse, step: int) -> TrainingError:
    """The error for memory that ran out in step `step`, with what to lower and by how much.

    What the model and its optimisers take stays, and the rest is taken to be proportional to the batch.
    """
    state = use.layer + use.outside
    needed = use.allocated + _asked_for(str(error))
    usable = USABLE * use.total
    advice = []
    a_batch = max(needed - state, 1)
    batch = config.training.batch_size
    fits = int(batch * min((usable - state) / a_batch, 0.75))
    if fits >= 1:
        fits = fits // 8 * 8 or fits
        advice.append(f"lower training.batch_size from {batch} to {fits}")
    if config.encoder.kind == "transformer":
        length = config.encoder.max_len * fits // batch
        if length >= _LEAST_LENGTH:
            advice.append(f"lower encoder.max_len from {config.encoder.max_len} to {length}")
        if not config.encoder.gradient_checkpointing:
            advice.append(
                "set encoder.gradient_checkpointing: true, which keeps few of its activations"
            )
    if smaller := _fan_in(config, use, needed - usable):
        advice.append(f"lower layer.fan_in from {config.layer.fan_in} to {smaller}")
    # kernels bound what they hold of the logits themselves
    if not config.layer.sparse and config.training.backend == "torch":
        advice.append(f"raise layer.chunks from {config.layer.chunks} to {2 * config.layer.chunks}")
    return TrainingError(
        f"{config.method}/{config.variant} seed {config.seed}: out of GPU memory in step {step}: "
        f"{needed / GIB:.1f} GiB needed, the GPU has {use.total / GIB:.1f} GiB. The output layer takes "
        f"{use.layer / GIB:.1f} GiB, encoder and optimiser {use.outside / GIB:.1f} GiB, the rest is for "
        f"the batch of {batch}. To go on, {', or '.join(advice or ['use a GPU with more memory'])}."
    )


def not_finite(
    config: RunConfig,
    loss: float,
    step: int,
    total_steps: int,
    model: Model,
    resumed: int,
    folder: Path,
) -> TrainingError:
    """The error for a loss that is no longer finite: its step, and the tensors that are not either.

    `resumed`: steps that were done before, of the checkpoint in `folder`.
    """
    if step == 1:
        # weights and inputs were finite: `check_start`
        advice = (
            "No step had changed a weight, so it does not come from a learning rate: the first batch gives "
            f"more than layer.dtype {config.layer.dtype}, layer.loss_dtype {config.layer.loss_dtype} and "
            f"encoder.dtype {config.encoder.dtype} hold"
        )
    elif step == resumed + 1:
        advice = (
            f"It is the first step after the checkpoint in {folder}, with which it will come again: remove "
            "that folder to train from the start, with lower learning rates"
        )
    else:
        advice = (
            f"Lower training.learning_rate ({config.training.learning_rate:g}) or encoder.learning_rate "
            f"({config.encoder.learning_rate:g})"
        )
        if any(folder.glob("[!.]*")):
            advice += f"; the last checkpoint, from before, is in {folder}"
    return TrainingError(
        f"{config.method}/{config.variant} seed {config.seed}: the loss is {loss} at step {step} of "
        f"{total_steps}; {_bad_tensors(model) or 'all weights are finite'}. {advice}."
    )


def check_start(config: RunConfig, model: Model, documents: Ragged) -> None:
    """Refuse (DataError) weights, or values of sparse features, that are not finite before the first step."""
    if bad := _bad_tensors(model):
        raise DataError(
            f"{config.inputs.model}: a model made from it has weights that are {bad}. Fetch it again: "
            "haste fetch."
        )
    if documents.weights is not None and not np.isfinite(documents.weights).all():
        raise DataError(
            f"{config.inputs.tokens}: features of the training documents have values that are not finite. "
            "Mend the data, and make it again: haste corpus, haste tokenize."
        )


def _bad_tensors(model: Model) -> str:
    """The names of tensors that are not finite; empty where all are."""
    bad = [name for name, value in model.tensors(momenta=True).items() if not _is_finite(value)]
    if not bad:
        return ""
    named = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
    return f"not finite: {named}"


def _is_finite(value: Tensor) -> bool:
    return all(torch.isfinite(dequantize(part)).all() for part in value.flatten().split(_BLOCK))


def _fan_in(config: RunConfig, use: MemoryUse, excess: float) -> int | None:
    """The largest fan-in at which the output layer, of sparse rows, is smaller by `excess` bytes."""
    if not config.layer.sparse:
        return None
    factor = 1 - excess / max(use.layer, 1)
    fitting = [fan_in for fan_in in FAN_INS if fan_in <= min(factor, 0.99) * config.layer.fan_in]
    return max(fitting, default=None)


def _asked_for(message: str) -> int:
    """Bytes that the allocator could not give, as its message says; 0 where it does not."""
    match = re.search(rf"Tried to allocate ([0-9.]+) ({'|'.join(_UNITS)})\b", message)
    return round(float(match[1]) * _UNITS[match[2]]) if match else 0
