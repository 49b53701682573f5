"""Subcommands: evaluate, baseline."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from haste.cli.app import CorpusOption, app
from haste.progress import working

log = logging.getLogger(__name__)


@app.command()
def evaluate(
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder, with config.yaml and predictions.npz.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Instead of a run: predictions of any tool.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="The labels of those documents.")] = None,
    training: Annotated[
        Path | None, typer.Option(help="The labels of the training documents, for PSP and PSnDCG.")
    ] = None,
    propensity: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="A B",
            help="Constants of the propensity model. [default: those of the corpus.json beside --training, "
            "else those of a data set that states none]",
        ),
    ] = None,
) -> None:
    """Evaluate a run again, into its metrics.json, or the predictions of any tool.

    A run's predictions.npz are held against the corpus of its config.

    Files of other tools: .npz with a CSR matrix [documents, labels] (scipy) or with
    ids and scores [documents, k]; .csv or .parquet with the columns document, label
    and score, or with a row a document and lists labels and scores. Metrics are
    printed as JSON.
    """
    from haste.errors import ConfigError

    if run is not None and not any((predictions, truth, training, propensity)):
        from haste.metrics.runs import evaluate_run
        from haste.paths import RunDir

        with working("Evaluating"):
            metrics = evaluate_run(RunDir(run))
        _show(metrics)
        return
    if run is not None or predictions is None or truth is None:
        raise ConfigError("evaluate: give the folder of a run, or --predictions and --truth.")
    from haste.metrics.prediction_files import evaluate_files

    with working("Evaluating"):
        metrics = evaluate_files(predictions, truth, training, propensity)["metrics"]
    typer.echo(json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False))


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

    with working(f"Training {name}"):
        metrics = run_baseline(name, load_corpus(corpus), RunDir(out), seed, threads)
    _show(metrics)


def _show(metrics: dict) -> None:
    values = "  ".join(f"{name} {value:.2f}" for name, value in metrics["metrics"].items())
    log.info("%d documents, %s: %s", metrics["documents"], metrics["backend"], values)
