"""One run from its configuration to its metrics: train, then read one split at the end.

That is the test split, and for a run by which settings are chosen the validation split.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from haste.checksums import SUMS, file_sums, write_description
from haste.config import RunConfig
from haste.data.batches import EpochBatches
from haste.device import choose_device
from haste.distributed import ALONE, Ranks
from haste.files import write_yaml
from haste.inputs import RunInputs
from haste.metrics.metrics import MAX_RANK, quick_metrics
from haste.metrics.runs import write_predictions
from haste.metrics.truth import Truth, truth_of
from haste.model import build_model
from haste.paths import RunDir
from haste.progress import counting
from haste.resources import Meter
from haste.run_lock import locked
from haste.runs import IDENTITY, claim, identity, input_digest, is_done, remove_results
from haste.training import checkpoint, failures
from haste.training.adapt import adapted
from haste.training.loop import Trainer
from haste.training.optim import optimizer_bytes
from haste.training.step import TrainStep
from haste.training.stopping import StopSignals, stop_signals
from haste.training.tail_bias import tune_tail_bias

log = logging.getLogger(__name__)


def train_and_evaluate(
    config: RunConfig, out: RunDir, *, force: bool = False, ranks: Ranks = ALONE
) -> None:
    """Train a run, or resume it, and write all files of its folder; a finished one is left as it is.

    With `force` it is trained anew and its results are replaced. Several `ranks` call it together, of which
    the first writes. Raises ConfigError, DataError or KernelError for inputs that will not do and for a
    folder of other files, RunLockedError where another process trains there, TrainingError when the loss is
    no longer finite, and Stopped on a signal.
    """
    with ExitStack() as stack:
        ranks.agree(lambda: stack.enter_context(locked(out.root)), on_first=True)
        stop = stack.enter_context(stop_signals())
        if ranks.agree(lambda: _begin(config, out, force=force), on_first=True):
            stack.enter_context(_torch_settings(config))
            _train(config, out, stop, ranks)


def _begin(config: RunConfig, out: RunDir, *, force: bool) -> bool:
    """Claim the folder; False where the run has finished."""
    if is_done(out, config) and not force:
        log.info(
            "%s: has finished with this configuration; nothing is done. --force trains it anew.",
            out.root,
        )
        return False
    claim(out, config, force=force)
    if force:
        checkpoint.discard(out.checkpoint)
    return True


@contextmanager
def _torch_settings(config: RunConfig) -> Iterator[None]:
    """Threads and determinism of a run; afterwards they are the caller's again."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(config.training.threads)
    if config.training.deterministic:
        # what cuBLAS asks for, before it starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _train(config: RunConfig, out: RunDir, stop: StopSignals, ranks: Ranks) -> None:
    device = choose_device(config.training.device)
    meter = Meter(device.type)
    with meter.phase("setup"):
        # now: inputs may be replaced while this trains
        digest = ranks.agree(lambda: input_digest(config.inputs))
        inputs, truth, trainer = ranks.agree(
            lambda: _set_up(config, digest, out, device, stop, ranks)
        )
        documents, model = inputs.tokens.splits, trainer.model
    trained_from = identity(config, digest)
    if ranks.first:
        if not out.config.exists():
            write_yaml(out.config, config.as_dict())
        remove_results(out)
    config = trainer.config
    with meter.phase("train"), stop.held():
        progress = trainer.run()
        # kept until the results are on disk, so a kill from here on costs no training
        trainer.save()
        stop.kept = "after the last step; all are kept, and the evaluation is left"
    tail_bias_offset = None
    with meter.phase("evaluate"):
        if config.training.tune_tail_bias:
            # after the checkpoint, so a run that resumes from it is not shifted twice
            tail_bias_offset = tune_tail_bias(model, documents["validation"], truth)
        split = config.training.evaluate
        number = len(documents[split])
        with counting(f"Predicting {split}", number, shown=ranks.first) as tick:
            ids, scores = model.predict(documents[split], MAX_RANK, tick=tick)
        metrics: dict[str, Any] = {}
        if ranks.first and split == "validation":
            metrics = truth.evaluate(ids, scores)
        elif ranks.first:
            evaluated = truth_of(inputs.corpus, split, inputs.label_frequencies)
            metrics = evaluated.evaluate(ids, scores)
    model.save(out.model)
    layer_bytes = ranks.sum(model.layer.layer_bytes())
    layer_parameters = ranks.sum(model.layer.trained_parameters())
    meter.peak_bytes = {
        phase: max(of_rank[phase] for of_rank in ranks.collect(meter.peak_bytes))
        for phase in meter.peak_bytes
    }
    if not ranks.first:
        return
    write_predictions(out, ids, scores)
    weights = [*model.encoder.parameters(), *model.projection.parameters()]
    outside = sum(p.numel() * p.element_size() for p in weights)
    meter.seconds["train"] = progress.seconds
    resources = meter.resources(
        parameters=sum(p.numel() for p in weights) + layer_parameters,
        layer_bytes=layer_bytes,
        state_bytes=outside + optimizer_bytes(trainer.optimizers) + layer_bytes,
        steps=progress.step,
        epoch_seconds=progress.epoch_seconds,
        threads=config.training.threads,
        gradient_checkpointing=config.encoder.gradient_checkpointing,
        tail_bias_offset=tail_bias_offset,
    )
    if ranks.size > 1:
        # bytes at peak are of the rank with most, those of layer and state of all together
        resources["ranks"] = ranks.size
    sums = file_sums([out.history], out.root)
    write_description(out.resources, {**resources, IDENTITY: trained_from, SUMS: sums})
    with stop.held(last=True):
        # last: where it is, the run is whole
        write_description(out.metrics, metrics)
        checkpoint.discard(out.checkpoint)
        values = "  ".join(f"{k} {v:.2f}" for k, v in metrics["metrics"].items())
        log.info("%s: %s", split, values)


def _set_up(
    config: RunConfig,
    digest: str | None,
    out: RunDir,
    device: torch.device,
    stop: StopSignals,
    ranks: Ranks,
) -> tuple[RunInputs, Truth, Trainer]:
    """What a run reads, the truth of its validation split, and its trainer."""
    inputs = RunInputs.load(config)
    documents = inputs.tokens.splits
    config = adapted(config, inputs)
    batches = EpochBatches.of(config, documents["train"])
    total_steps = len(batches) * config.training.epochs
    model = build_model(config, inputs, device, total_steps, ranks)
    truth = truth_of(inputs.corpus, "validation", inputs.label_frequencies)

    def validate() -> dict[str, float]:
        ids, _ = model.predict(documents["validation"], 5)
        return ranks.agree(
            lambda: quick_metrics(ids, truth.positives, truth.inverse_propensity), on_first=True
        )

    train_step = TrainStep(config, model, total_steps)
    trainer = Trainer(
        train_step, inputs, batches, out, checkpoint.origin(config, digest), validate, stop
    )
    failures.check_start(config, model, documents["train"])
    return inputs, truth, trainer
