"""Subcommands: evaluate, baseline."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from haste.cli.app import CorpusOption, app

log = logging.getLogger(__name__)


@app.command()
def evaluate(
    run: Annotated[
        Path, typer.Argument(help="A run's folder, with config.yaml and predictions.npz.")
    ],
) -> None:
    """Evaluate a run again: predictions.npz against the corpus of its config, into metrics.json."""
    from haste.metrics.runs import evaluate_run
    from haste.paths import RunDir

    _show(evaluate_run(RunDir(run)))


@app.command()
def baseline(
    name: Annotated[str, typer.Argument(help="omikuji or popularity.")],
    corpus: CorpusOption,
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    seed: Annotated[
        int, typer.Option(min=0, help="Seed in the run's name; the baselines do not use it.")
    ] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Train and evaluate a linear baseline."""
    from haste.data.corpus import load_corpus
    from haste.metrics.linear_baselines import run_baseline
    from haste.paths import RunDir

    _show(run_baseline(name, load_corpus(corpus), RunDir(out), seed, threads))


def _show(metrics: dict) -> None:
    values = "  ".join(f"{name} {value:.2f}" for name, value in metrics["metrics"].items())
    log.info("%d documents, %s: %s", metrics["documents"], metrics["backend"], values)
