"""Stands in for `haste train RUN_DIR/config.yaml` in tests of the driver.

The second argument is a folder: `journal` there gets a line when a run starts and ends; a file named
like a run, with / as +, says what becomes of it:
fail    a few lines of output, exit code 3
empty   exit code 0, but no results
late    results, but exit code 1
wait    waits for SIGTERM, leaves a checkpoint and exit code 143; the next time it finishes
deaf    waits and does not hear SIGTERM
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(config: Path, folder: Path) -> None:
    run = config.parent
    name = "/".join(run.parts[-4:])
    told = folder / name.replace("/", "+")
    what = told.read_text() if told.exists() else ""
    state = run / "checkpoint" / "state"

    def note(event: str) -> None:
        with (folder / "journal").open("a") as journal:
            journal.write(f"{event} {name} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")

    def stop(*_: object) -> None:
        state.parent.mkdir(exist_ok=True)
        state.touch()
        sys.exit(143)

    if what == "wait":
        signal.signal(signal.SIGTERM, stop)
    if what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("resume" if state.exists() else "start")
    if what == "fail":
        sys.stdout.write("".join(f"line {number}\n" for number in range(40)))
        sys.exit(3)
    if what in ("wait", "deaf") and not state.exists():
        time.sleep(60)
    time.sleep(0.3)
    note("end")
    if what != "empty":
        (run / "resources.json").write_text(
            json.dumps({"completed": True, "runs_at_once": os.environ.get("HASTE_RUNS_AT_ONCE")})
        )
        (run / "metrics.json").write_text(json.dumps({"metrics": {"P@1": 12.345}}))
    if what == "late":
        sys.exit(1)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
