"""Stands in for `haste` in tests of the workflow: makes each command's files, empty, at once.

STUB_LOG     every call is written there
STUB_FAIL    a part of a run's path: `haste train` of it leaves a checkpoint and half its files, fails
STUB_HANG    the same, but it hangs
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path

from haste.paths import SPLITS, CorpusDir, RunDir, TokenDir


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("made by the stub\n")


def train(run: RunDir) -> None:
    state = run.checkpoint / "state"
    resumed = state.exists()
    for variable in ("STUB_FAIL", "STUB_HANG"):
        if os.environ.get(variable) and os.environ[variable] in str(run.root):
            touch(state, run.metrics, run.history)
            if variable == "STUB_FAIL":
                sys.exit("the stub was told to fail")
            time.sleep(600)
    touch(run.metrics, run.resources, run.predictions, run.history, run.model)
    run.metrics.write_text(f"resumed: {resumed}, threads: {os.environ['OMP_NUM_THREADS']}\n")


def main(command: str, arguments: list[str]) -> None:
    if command == "gpu-slot":
        # behind it stands `haste` again
        command, *arguments = arguments[arguments.index("--") + 2 :]
    with Path(os.environ["STUB_LOG"]).open("a") as log:
        log.write(json.dumps([command, *arguments]) + "\n")
    options = dict(itertools.pairwise(arguments))
    out = Path(options.get("--out", "."))
    if command == "fetch":
        touch(out / "SOURCE.json")
    elif command == "synth":
        touch(Path(arguments[-1]) / "trn.json")
    elif command == "corpus":
        corpus = CorpusDir(out)
        touch(corpus.info, corpus.labels, *(corpus.reciprocal(s) for s in SPLITS[1:]))
        touch(*(f(s) for s in SPLITS for f in (corpus.documents, corpus.positives)))
    elif command == "tokenize":
        tokens = TokenDir(out)
        touch(tokens.info, tokens.vocabulary)
        touch(*(f(s) for s in SPLITS for f in (tokens.ids, tokens.offsets)))
        tokens.info.write_text("{}\n")
    elif command == "configure":
        # no two are alike, for a change of its settings is what makes it again
        touch(out)
        out.write_text(str(time.time_ns()))
    elif command in ("embed", "group"):
        touch(out)
    elif command == "train":
        train(RunDir(Path(arguments[-1]).parent))
    elif command == "baseline":
        run = RunDir(out)
        touch(run.metrics, run.resources, run.predictions)
    elif command in ("table", "figure"):
        suffixes = {"table": ("csv", "md", "tex"), "figure": ("csv", "pdf", "png")}
        touch(*(Path(f"{out}.{suffix}") for suffix in suffixes[command]))
    elif command == "index":
        touch(Path(arguments[arguments.index("--grid") + 1]).with_name("index.html"))
    elif command not in ("bench", "plan"):
        sys.exit(f"the stub knows no {command!r}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
