"""The training loop: features, a step of the output layer, a step of the encoder; read it aloud."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from haste.data.batches import Batch, EpochBatches
from haste.errors import ConfigError, DataError
from haste.files import write_rows
from haste.inputs import RunInputs
from haste.metrics.names import HISTORY, VALIDATED
from haste.paths import RunDir
from haste.progress import counting
from haste.training import checkpoint, failures, loader
from haste.training.padding import PaddedBatch
from haste.training.step import TrainStep
from haste.training.stopping import StopSignals

log = logging.getLogger(__name__)

_GPU_CHECK_INTERVAL = 50
"""steps between checks of the loss on a GPU, each of which synchronizes"""


class Trainer:
    """Trains a model, from the start or from its checkpoint."""

    def __init__(
        self,
        train_step: TrainStep,
        inputs: RunInputs,
        batches: EpochBatches,
        out: RunDir,
        origin: Mapping[str, str],
        validate: Callable[[], dict[str, float]],
        stop: StopSignals,
    ) -> None:
        """`out` takes checkpoint and history; `origin`: of what a checkpoint is, see `checkpoint.origin`;
        `validate` gives validation metrics in percent. Raises ConfigError for `training.tensorboard` without its
        package."""
        if train_step.config.training.tensorboard:
            summary_writer()
        self.train_step = train_step
        self.config = train_step.config
        self.model = train_step.model
        self.ranks = train_step.model.ranks
        self.optimizers = train_step.optimizers
        self.total_steps = train_step.total_steps
        self.tokens = inputs.tokens.splits["train"]
        self.positives = inputs.train_positives
        self.padding = train_step.padding(self.positives)
        self.batches = batches
        self.out = out
        self.validate = validate
        self.stop = stop
        self.progress = checkpoint.Progress()
        self._origin = origin
        self._resumed = 0
        self._last_save = time.perf_counter()
        self._check_interval = _GPU_CHECK_INTERVAL if self.model.device.type == "cuda" else 1
        self._unchecked: list[torch.Tensor] = []

    def run(self) -> checkpoint.Progress:
        """Train to the last epoch; raises TrainingError when the loss is no longer finite or memory runs
        out, and Stopped, after a checkpoint, when a signal asked for it."""
        self.resume()
        begin = time.perf_counter() - self.progress.seconds
        name = f"{self.config.method} {self.config.variant}"
        with counting(name, self.total_steps, shown=self.ranks.first) as advance:
            while self.progress.step < self.total_steps and not self._out_of_patience():
                epoch, first = divmod(self.progress.step, len(self.batches))
                self.model.train(True)
                total = torch.zeros((), dtype=torch.float64, device=self.model.device)
                total += self.progress.loss
                with self._batches(epoch, first) as batches:
                    for batch in batches:
                        loss = self.step(batch)
                        total += loss
                        self._unchecked.append(loss)
                        self.progress.step += 1
                        self.progress.documents += batch.size
                        advance(self.progress.step)
                        if self.progress.step % self._check_interval == 0:
                            self._check()
                        self.progress.seconds = time.perf_counter() - begin
                        if self.progress.step % len(self.batches):
                            begin += self._pause_if_due(total)
                self._check()
                # a GPU has caught up only now
                self.progress.seconds = time.perf_counter() - begin
                self.progress.loss = float(total)
                # neither validation nor checkpoints are time of an epoch
                ended = time.perf_counter()
                self._end_epoch(epoch)
                begin += time.perf_counter() - ended
                begin += self._pause_if_due(total.zero_())
        if self.config.training.patience:
            self.model.load(self._best)
        return self.progress

    def step(self, batch: Batch | PaddedBatch) -> torch.Tensor:
        """One step on a batch; returns the loss, summed over batch and labels."""
        try:
            outcome = self.train_step(batch, self.progress.step)
        except torch.OutOfMemoryError as error:
            raise failures.out_of_memory(
                self.config,
                error,
                failures.MemoryUse.of(self.model, self.optimizers),
                self.progress.step + 1,
            ) from error
        self.progress.rewired += outcome.moved
        return outcome.loss

    def resume(self) -> None:
        """Resume from the checkpoint, if there is one of this configuration and these inputs."""
        restored = checkpoint.load(self.out.checkpoint, self._origin, self.model, self.optimizers)
        steps = self.ranks.collect(restored.step if restored else 0)
        if len(set(steps)) > 1:
            raise DataError(
                f"{self.out.checkpoint}: processes read it at different steps ({', '.join(map(str, steps))}); "
                "put the run's folder where all of them see the same files."
            )
        if restored is not None:
            self.progress, self._resumed = restored, restored.step
            if self.ranks.first:
                # the folder may have been cleared since, and no epoch may be left that would write it
                write_rows(self.out.history, HISTORY, restored.history)
            log.info("resuming from step %d of %d", restored.step, self.total_steps)

    def save(self) -> None:
        """Write the checkpoint."""
        checkpoint.save(
            self.out.checkpoint, self._origin, self.model, self.optimizers, self.progress
        )
        self._last_save = time.perf_counter()

    def _pause_if_due(self, total: torch.Tensor) -> float:
        """A checkpoint every n minutes and on a stop signal, with the epoch's loss so far; seconds that it took."""
        minutes = (time.perf_counter() - self._last_save) / 60
        due = minutes >= self.config.training.checkpoint_minutes
        number = self.stop.number
        if self.ranks.size > 1:
            if self.progress.step % self._check_interval:
                return 0.0
            # they pause together; a signal that comes meanwhile is for the next time
            asked = self.ranks.collect((due, number))
            due = any(of_rank for of_rank, _ in asked)
            number = next((number for _, number in asked if number), None)
        if not due and number is None:
            return 0.0
        if number is not None:
            self.stop.number = number
        self._check()
        paused = time.perf_counter()
        self.progress.loss = float(total)
        self.save()
        self.stop.kept = f"after step {self.progress.step} of {self.total_steps}, with a checkpoint"
        if number is not None or self.ranks.size == 1:
            self.stop.check()
        return time.perf_counter() - paused

    def _batches(
        self, epoch: int, first: int
    ) -> AbstractContextManager[Iterator[Batch | PaddedBatch]]:
        rows = self.batches.rows(epoch, first)
        return loader.batches(
            self.tokens,
            self.positives,
            rows,
            self.model.order.row_of_label,
            self.model.device,
            self.padding,
            self.ranks,
        )

    @property
    def _best(self) -> Path:
        """The weights of the best evaluation so far, where training is to stop early."""
        return self.out.checkpoint / checkpoint.BEST

    def _evaluations(self) -> list[float]:
        """Mean of the validation metrics of each evaluation so far."""
        rows = (row for row in self.progress.history if VALIDATED[0] in row)
        return [sum(row[name] for name in VALIDATED) / len(VALIDATED) for row in rows]

    def _out_of_patience(self) -> bool:
        patience, scores = self.config.training.patience, self._evaluations()
        if not patience or not scores:
            return False
        since = len(scores) - 1 - scores.index(max(scores))
        if since >= patience:
            log.info(
                "stopped after epoch %d: no better for %d evaluations",
                len(self.progress.history),
                since,
            )
        return since >= patience

    def _check(self) -> None:
        """Check the losses since the last check; on a GPU this synchronizes."""
        losses = torch.stack(self._unchecked).tolist() if self._unchecked else []
        self._unchecked.clear()
        for step, loss in enumerate(losses, self.progress.step - len(losses) + 1):
            if not math.isfinite(loss):
                error = failures.not_finite(
                    self.config,
                    loss,
                    step,
                    self.total_steps,
                    self.model,
                    self._resumed,
                    self.out.checkpoint,
                )
                # all ranks have seen this loss, and one of them says so
                raise error if self.ranks.first else SystemExit(error.exit_code)

    def _end_epoch(self, epoch: int) -> None:
        progress, training = self.progress, self.config.training
        last = epoch + 1 == training.epochs
        validates = last or (epoch + 1) % training.validate_every == 0
        metrics = self.validate() if validates else {}
        factor = self.train_step.factor(progress.step - 1)
        row = {
            "epoch": epoch + 1,
            "step": progress.step,
            "loss": progress.loss / progress.documents,
            "learning_rate": factor * training.learning_rate,
            "seconds": round(progress.seconds, 3),
            "rewired": progress.rewired,
            **metrics,
        }
        progress.epoch_seconds.append(progress.seconds - sum(progress.epoch_seconds))
        progress.history.append(row)
        progress.loss, progress.documents, progress.rewired = 0.0, 0, 0
        if self.ranks.first:
            write_rows(self.out.history, HISTORY, progress.history)
            if training.tensorboard:
                log_to_tensorboard(self.out.root, row)
        scores = self._evaluations()
        if training.patience and metrics and scores[-1] == max(scores):
            self.model.save(self._best)
        log.info(
            "epoch %d/%d  loss %.3f  %s  %.1f s",
            row["epoch"],
            training.epochs,
            row["loss"],
            "  ".join(f"{name} {value:.2f}" for name, value in metrics.items()),
            progress.epoch_seconds[-1],
        )


def log_to_tensorboard(folder: Path, row: Mapping[str, Any]) -> None:
    """Add a row of the history to the event files in a run's folder; raises ConfigError without the package."""
    with summary_writer()(str(folder)) as writer:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                writer.add_scalar(name, value, row["step"])


def summary_writer() -> Any:
    """TensorBoard's class; raises ConfigError without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "training.tensorboard: needs the package tensorboard; pip install tensorboard, or leave it out."
        ) from error
    return SummaryWriter
