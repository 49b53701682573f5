"""Subcommands: train, predict, doctor."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from haste.cli.app import app
from haste.progress import counting, working

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from haste.predict import Suggestion


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The configuration of a run (YAML).")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default that of the config.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Train again where a run has finished, and replace it."),
    ] = False,
) -> None:
    """Train one run and evaluate it; resumes from its checkpoint.

    A run's YAML names its dataset, method, variant and seed, and under inputs:
    the folders corpus, tokens and model, and the file order (for groups or a
    head; haste group makes it). What differs from the defaults stands under
    encoder:, layer:, rewire:, auxiliary: and training:. The config.yaml of a
    finished run has every key.

    A run that has finished with this configuration from these inputs is left as
    it is. SIGINT, SIGHUP and SIGTERM stop it with a checkpoint (exit codes 130,
    129, 143); where another process trains the same run, the exit code is 75.

    On several GPUs: torchrun --nproc-per-node N -m haste train CONFIG. The batch
    and the labels are distributed over the N processes; results do not depend on N.
    """
    from haste.config import read_run
    from haste.paths import RunDir
    from haste.settings import naming

    run = read_run(config)
    # torch, which a bad config need not wait for
    from haste.distributed import launched
    from haste.training.run import train_and_evaluate

    with naming(config), launched(run.training.device) as ranks:
        if not ranks.first:
            logging.getLogger().setLevel(logging.WARNING)
        train_and_evaluate(run, RunDir(out or config.parent), force=force, ranks=ranks)


@app.command()
def predict(
    run: Annotated[Path, typer.Option(help="Folder of a finished run.")],
    input_file: Annotated[
        Path, typer.Option("--input", help="Texts, UTF-8, one a line; - for standard input.")
    ],
    k: Annotated[int, typer.Option(min=1, help="Labels per text.")] = 5,
    output_format: Annotated[
        Literal["text", "jsonl"], typer.Option("--format", help="Output format.")
    ] = "text",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="A .parquet file to write instead of printing.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="First hold all of the weights to their digest.")
    ] = False,
) -> None:
    """Print the best labels of new texts, with their probabilities: one line per line of the input.

    Lines end in \\n only; output is UTF-8. A line without text has a result
    without labels.

    As text: the labels, best first, separated by tabs, each its probability, a
    space and its name; an empty line where there are none.
    As jsonl: {"text": ..., "labels": [{"uid": ..., "name": ..., "score": ...}]}.
    With --out: a Parquet file with the column text and lists labels, names, scores.

    The weights are mapped into memory, which several processes share, and of their
    file only the header and the sizes are checked; --verify reads all of it first.
    """
    import sys

    from haste.errors import ConfigError
    from haste.paths import RunDir
    from haste.textlines import LineStream

    if out is not None and out.suffix != ".parquet":
        raise ConfigError(f"--out: {out} does not end in .parquet; --format jsonl prints JSON.")
    name = "standard input" if str(input_file) == "-" else str(input_file)
    with ExitStack() as stack:
        # before loading the model, so that a missing file is reported at once
        source = (
            sys.stdin.buffer
            if str(input_file) == "-"
            else stack.enter_context(input_file.open("rb", buffering=0))
        )
        from haste.device import choose_device
        from haste.predict import Predictor

        with working("Loading the model"):
            predictor = Predictor(RunDir(run), choose_device(device), verify=verify)
        show = _as_json if output_format == "jsonl" else _as_text
        # a progress bar would be printed between the results
        printed = out is None and sys.stdout.isatty()
        tick, done = stack.enter_context(nullcontext() if printed else counting("Predicting")), 0
        writer = stack.enter_context(_parquet(out)) if out else None
        for texts in LineStream(source.fileno()).blocks(name):
            predictions = predictor(texts, k)
            if writer:
                writer.write_table(predictions.table(texts))
            else:
                lines = map(show, texts, predictions)
                sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode())
                sys.stdout.buffer.flush()
            done += len(texts)
            if tick:
                tick(done)


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetWriter]:
    """What writes tables of predictions to a Parquet file, which is there when all are written."""
    import pyarrow.parquet as pq

    from haste.files import atomic
    from haste.predict import SCHEMA

    with atomic(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        yield writer


@app.command()
def export(
    run: Annotated[Path, typer.Option(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    program: Annotated[
        bool,
        typer.Option("--program", help="Also model.pt2, a torch.export program of ids and mask."),
    ] = False,
) -> None:
    """Copy all that a prediction needs into one folder, with a model card.

    It holds weights, label names and order, tokenizer, encoder configuration,
    metrics and versions, and is a run's folder itself: haste predict --run reads
    it wherever it lies, and HasteClassifier.from_pretrained.
    """
    from haste.device import choose_device
    from haste.paths import RunDir
    from haste.portable import save_pretrained
    from haste.predict import Predictor
    from haste.program import write_program

    with working(f"Writing {out}"):
        predictor = Predictor(RunDir(run), choose_device("cpu"), verify=True)
        save_pretrained(predictor, out)
        if program:
            write_program(predictor.model, out / "model.pt2")


def _as_text(_: str, labels: Sequence[Suggestion]) -> str:
    return "\t".join([f"{label.score:.3f} {_one_line(label.name)}" for label in labels])


@lru_cache(maxsize=1 << 16)
def _one_line(name: str) -> str:
    """A name that may have tabs and line breaks, without."""
    return " ".join(name.split())


def _as_json(text: str, labels: Sequence[Suggestion]) -> str:
    import json

    listed = [
        {"uid": label.uid, "name": label.name, "score": round(label.score, 6)} for label in labels
    ]
    return json.dumps({"text": text, "labels": listed}, ensure_ascii=False)


@app.command()
def doctor(
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Run the kernels on the GPU and compare with fp64.")
    ] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Check the Slurm cluster and its profile instead.")
    ] = False,
    profile: Annotated[
        Path, typer.Option(help="Snakemake's profile for the cluster, which a site edits.")
    ] = Path("workflow/profiles/slurm"),
) -> None:
    """Report what this machine has, and what will not run on it and why.

    With --kernels also whether the kernels are correct as this version of Triton
    compiles them for this GPU, which takes up to a minute; exit code 1 if one is
    wrong or does not run. With --slurm whether account, partitions and limits
    of the profile are the cluster's; exit code 1 if jobs would fail.
    """
    from rich.console import Console
    from rich.table import Table

    from haste.doctor import examine
    from haste.slurm import Site, examine_slurm

    table = Table(title="haste doctor", title_justify="left")
    for column in ("", "what", "found", "what follows"):
        table.add_column(column, overflow="fold")
    wrong = False
    lines = examine_slurm(Site.read(profile), Path()) if slurm else examine(Path(), kernels=kernels)
    with working("Checking this machine"):
        for line in lines:
            mark = "ok" if line.ok else "optional" if line.optional else "--"
            table.add_row(mark, line.what, line.state, "" if line.ok else line.consequence)
            wrong |= line.wrong
    Console().print(table)
    if wrong:
        raise typer.Exit(1)
