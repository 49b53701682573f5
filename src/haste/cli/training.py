"""Subcommands: train, predict, doctor."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How predictions are printed."""

    text = "text"
    jsonl = "jsonl"


def register(app: typer.Typer) -> None:
    """Add this module's subcommands to the command."""
    app.command()(train)
    app.command()(predict)
    app.command()(doctor)


def train(
    config: Annotated[Path, typer.Argument(help="A run's YAML, written by hand or by a grid.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default that of the config.")
    ] = None,
) -> None:
    """Train one run and evaluate it; goes on from its checkpoint after a stop.

    A run's YAML names its dataset, method, variant and seed, and under inputs:
    the folders corpus, tokens and model, and the file order (for groups or a
    head; haste group makes it). What differs from the defaults stands under
    encoder:, layer:, rewire:, auxiliary: and training:. The config.yaml of a
    finished run has every key.
    """
    from haste.config import read_run
    from haste.paths import RunDir
    from haste.settings import naming

    run = read_run(config)
    from haste.training.run import train_and_evaluate  # torch, which a bad config need not wait for

    with naming(config):
        train_and_evaluate(run, RunDir(out or config.parent))


def predict(
    run: Annotated[Path, typer.Option(help="Folder of a finished run.")],
    input_file: Annotated[
        Path, typer.Option("--input", help="Texts, UTF-8, one a line; - for standard input.")
    ],
    k: Annotated[int, typer.Option(help="Labels a text.")] = 5,
    output_format: Annotated[
        Format, typer.Option("--format", help="How to print them.")
    ] = Format.text,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Print the best labels of new texts, with their probabilities.

    As text: each text, and below it a line for each label, probability first.
    As jsonl: a line for each text, {"text": ..., "labels": [{"uid": ...,
    "name": ..., "score": ...}]}, best first.
    """
    import json

    from haste.paths import RunDir
    from haste.predict import Predictor
    from haste.training.run import choose_device

    texts = _read_lines(input_file)
    predictor = Predictor(RunDir(run), choose_device(device))
    for text, found in zip(texts, predictor(texts, k), strict=True):
        if output_format is Format.jsonl:
            labels = [{"uid": s.uid, "name": s.name, "score": round(s.score, 6)} for s in found]
            typer.echo(json.dumps({"text": text, "labels": labels}, ensure_ascii=False))
        else:
            typer.echo(text)
            for s in found:
                typer.echo(f"  {s.score:.3f}  {s.name}")


def doctor(
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Run the kernels on the GPU and compare with fp64.")
    ] = False,
) -> None:
    """Say what this machine has, and what will not run on it and why.

    With --kernels also whether the kernels are right as this version of Triton
    compiles them for this GPU, which takes it up to a minute; exit code 1 if one
    is wrong or does not run.
    """
    from rich.console import Console
    from rich.table import Table

    from haste.doctor import examine

    table = Table(title="haste doctor", title_justify="left")
    for column in ("", "what", "found", "what follows"):
        table.add_column(column, overflow="fold")
    wrong = False
    for line in examine(Path(), kernels=kernels):
        mark = "ok" if line.ok else "--"
        table.add_row(mark, line.what, line.found, "" if line.ok else line.consequence)
        wrong |= line.wrong
    Console().print(table)
    if wrong:
        raise typer.Exit(1)


def _read_lines(path: Path) -> list[str]:
    import sys

    from haste.errors import DataError

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; give texts, one a line.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert it first.") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path}: holds no text; give texts, one a line.")
    return lines
