"""The training loop: features, a step of the output layer, a step of the encoder; read it aloud."""

from __future__ import annotations

import csv
import io
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import scipy.sparse as sp
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from haste.config import RunConfig
from haste.data.batches import EpochBatches, collate
from haste.data.ragged import Ragged
from haste.errors import TrainingError
from haste.files import atomic
from haste.kernels.rounding import generator
from haste.labels.order import LabelOrder
from haste.model import Model
from haste.sparsity.schedule import learning_rate_factor, rewires_at
from haste.training import checkpoint
from haste.training.optim import build_optimizers, set_learning_rate

log = logging.getLogger(__name__)

COLUMNS = ("epoch", "step", "loss", "learning_rate", "seconds", "P@1", "P@5", "PSP@5", "rewired")
_GPU_CHECK_INTERVAL = 50
"""steps between looks at the loss on a GPU, each of which waits for it"""


class Trainer:
    """Trains a model, from the start or from its checkpoint."""

    def __init__(
        self,
        config: RunConfig,
        model: Model,
        tokens: Ragged,
        labels: sp.csr_matrix,
        folder: Path,
        history: Path,
        validate: Callable[[], dict[str, float]],
    ) -> None:
        """`tokens` and `labels` CSR [N, >= L] are those of the training split; `folder` takes the
        checkpoint, `history` one row an epoch; `validate` gives validation metrics in percent."""
        self.config = config
        self.model = model
        self.tokens = tokens
        self.labels = labels
        self.folder = folder
        self.history = history
        self.validate = validate
        self.rank = LabelOrder(model.labels, 0, 1).rank
        self.batches = EpochBatches(len(tokens), config.training.batch_size, config.seed)
        self.total_steps = len(self.batches) * config.training.epochs
        self.optimizers = build_optimizers(model.encoder, model.projection, config.encoder)
        self.progress = checkpoint.Progress()
        self._last_save = time.perf_counter()
        self._check_interval = _GPU_CHECK_INTERVAL if model.device.type == "cuda" else 1

    def run(self) -> checkpoint.Progress:
        """Train to the last epoch; raises TrainingError when the loss is no longer finite, and
        SystemExit(143) on SIGTERM, after a checkpoint."""
        self.resume()
        begin = time.perf_counter() - self.progress.seconds
        with _stop_signal() as stopped, _bar(self.config, self.total_steps) as advance:
            while self.progress.step < self.total_steps:
                epoch, first = divmod(self.progress.step, len(self.batches))
                self.model.train(True)
                total = torch.zeros((), dtype=torch.float64, device=self.model.device)
                total += self.progress.loss
                for rows in self.batches.rows(epoch, first):
                    loss = self.step(rows)
                    total += loss
                    self.progress.step += 1
                    self.progress.documents += len(rows)
                    advance(self.progress.step)
                    if self.progress.step % self._check_interval == 0:
                        self._check(loss)
                    self.progress.seconds = time.perf_counter() - begin
                    if self.progress.step % len(self.batches):
                        self._pause_if_due(total, stopped)
                self._check(total)
                self.progress.loss = float(total)
                self._end_epoch(epoch)
                self._pause_if_due(total.zero_(), stopped)
        return self.progress

    def step(self, rows: Any) -> torch.Tensor:
        """One step on the documents `rows`; returns the loss, summed over batch and labels."""
        done, training = self.progress.step, self.config.training
        factor = learning_rate_factor(done, self.total_steps, training.warmup)
        batch = collate(self.tokens, self.labels, rows, self.rank).to_torch(self.model.device)
        features = self.model.features(batch.ids, batch.offsets, batch.weights)
        result = self.model.layer.step(
            features.detach(),
            batch.positives,
            factor * training.learning_rate,
            seed=self.config.seed,
            step=done,
        )
        features.backward(result.grad_features.to(features.dtype))
        set_learning_rate(self.optimizers, factor * self.config.encoder.learning_rate)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if rewires_at(done + 1, self.total_steps, self.config.rewire):
            random = generator(self.model.device, self.config.seed, done, 3)
            stats = self.model.layer.rewire(random, features.detach(), batch.positives)
            self.progress.rewired += stats.moved
        return result.loss

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of this configuration."""
        found = checkpoint.load(self.folder, self.config, self.model, self.optimizers)
        if found is not None:
            self.progress = found
            log.info("going on from step %d of %d", found.step, self.total_steps)

    def save(self) -> None:
        """Write the checkpoint."""
        checkpoint.save(self.folder, self.config, self.model, self.optimizers, self.progress)
        self._last_save = time.perf_counter()

    def _pause_if_due(self, total: torch.Tensor, stopped: threading.Event) -> None:
        """Every n minutes, and when told to stop: a checkpoint, with the epoch's loss so far."""
        minutes = (time.perf_counter() - self._last_save) / 60
        if minutes < self.config.training.checkpoint_minutes and not stopped.is_set():
            return
        self._check(total)
        self.progress.loss = float(total)
        self.save()
        if stopped.is_set():
            log.warning("stopped at step %d; run again to go on", self.progress.step)
            raise SystemExit(143)

    def _check(self, loss: torch.Tensor) -> None:
        if math.isfinite(float(loss)):
            return
        raise TrainingError(
            f"{self.config.method}/{self.config.variant} seed {self.config.seed}: the loss is "
            f"{float(loss)} at step {self.progress.step} of {self.total_steps}. Lower "
            "training.learning_rate or encoder.learning_rate; the last good checkpoint is kept in "
            f"{self.folder}."
        )

    def _end_epoch(self, epoch: int) -> None:
        progress, training = self.progress, self.config.training
        last = epoch + 1 == training.epochs
        looks = last or (epoch + 1) % training.validate_every == 0
        found = self.validate() if looks else {}
        factor = learning_rate_factor(progress.step - 1, self.total_steps, training.warmup)
        row = {
            "epoch": epoch + 1,
            "step": progress.step,
            "loss": progress.loss / progress.documents,
            "learning_rate": factor * training.learning_rate,
            "seconds": round(progress.seconds, 3),
            "rewired": progress.rewired,
            **found,
        }
        progress.epoch_seconds.append(progress.seconds - sum(progress.epoch_seconds))
        progress.history.append(row)
        progress.loss, progress.documents, progress.rewired = 0.0, 0, 0
        write_history(self.history, progress.history)
        log.info(
            "epoch %d/%d  loss %.3f  %s  %.1f s",
            row["epoch"],
            training.epochs,
            row["loss"],
            "  ".join(f"{name} {value:.2f}" for name, value in found.items()),
            progress.epoch_seconds[-1],
        )


def write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write history.csv; what was not looked at in an epoch stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


@contextmanager
def _bar(config: RunConfig, total_steps: int) -> Iterator[Callable[[int], None]]:
    """A progress bar where a person looks; nothing in a log, which has a line an epoch."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        if not bar.console.is_terminal:
            bar.stop()
            yield lambda step: None  # noqa: ARG005
            return
        task = bar.add_task(f"{config.method} {config.variant}", total=total_steps)
        yield lambda step: bar.update(task, completed=step)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM sets (a cluster's preemption), in the main thread."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
