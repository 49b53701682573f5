"""The driver, with a stub in the place of training."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from haste.errors import ConfigError
from haste.files import read_json, read_yaml
from haste.fleet import drive as driver
from haste.fleet.places import VISIBLE, Place, find_places
from haste.fleet.worklist import select, worklist
from haste.grid import GridConfig, RunKey
from haste.runs import is_done, run_dir

STUB = Path(__file__).with_name("stub_train.py")
DENSE = "words/dense/default/seed0"
CPU = [Place("CPU")]


@pytest.fixture
def tell(tmp_path):
    """Says what becomes of a run, see stub_train.py; without a run, gives the journal."""
    folder = tmp_path / "told"
    folder.mkdir()

    def say(name: str = "", what: str = "") -> list[list[str]]:
        if name:
            (folder / name.replace("/", "+")).write_text(what)
        journal = folder / "journal"
        return (
            [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []
        )

    return say


@pytest.fixture
def drive(grid, tmp_path):
    def run(only=("dense", "spartex"), places=CPU, **options):
        options = {"jobs": 2, "grid": grid, **options}
        chosen = options.pop("grid")
        return driver.drive(
            chosen,
            select(worklist(chosen), only),
            places,
            command=lambda path: [sys.executable, str(STUB), str(path), str(tmp_path / "told")],
            **options,
        )

    return run


def test_all_open_runs_are_trained_in_order(drive, grid, tell, caplog):
    caplog.set_level(logging.INFO)
    summary = drive(only=(), jobs=1)
    names = [task.name for task in worklist(grid)]
    assert summary.done == names
    assert [name for event, name, _ in tell() if event == "start"] == names
    assert summary.failed == summary.open == []
    assert f"{DENSE}: done, P@1 12.35, " in caplog.text
    assert f"{len(names)} done, 0 failed, 0 open" in caplog.text
    for task in worklist(grid):
        run = run_dir(grid, task.key)
        assert read_yaml(run.config) == grid.resolve(task.key).as_dict()


def test_done_runs_are_skipped_and_stale_ones_are_not(drive, grid, finish, tell, caplog):
    caplog.set_level(logging.INFO)
    finish(grid, RunKey("words", "dense", "default", 0))
    stale = finish(grid, RunKey("words", "dense", "default", 1))
    stale.config.write_text(stale.config.read_text().replace("epochs: 2", "epochs: 3"))
    summary = drive(only=["dense"])
    assert [name for event, name, _ in tell() if event == "start"] == ["words/dense/default/seed1"]
    assert len(summary.done) == 2
    assert "1 runs are done, 1 open" in caplog.text
    assert not stale.model.exists(), "of the earlier configuration"


def test_results_of_another_configuration_do_not_pass_for_those_of_a_stopped_run(
    drive, grid, finish, tell
):
    key = RunKey("words", "dense", "default", 0)
    stale = finish(grid, key)
    stale.config.write_text(stale.config.read_text().replace("epochs: 2", "epochs: 3"))
    tell(DENSE, "wait")
    drive(only=[DENSE], seconds=1.0)
    assert not is_done(stale, grid.resolve(key))


def test_a_failed_run_is_shown_and_the_others_go_on(drive, tell, caplog):
    tell(DENSE, "fail")
    summary = drive()
    assert summary.failed == [DENSE]
    assert len(summary.done) == 3
    assert [name for event, name, _ in tell() if event == "start"].count(DENSE) == 1
    assert "failed (exit code 3)" in caplog.text
    assert "line 39" in caplog.text
    assert "line 20" not in caplog.text, "the last lines only"
    assert "line 0\n" in Path("logs/small/words/dense/default/seed0.log").read_text()
    assert f"failed: {DENSE}" in caplog.text


@pytest.mark.parametrize("what", ["empty", "late"])
def test_a_run_needs_both_results_and_exit_code_0(drive, tell, what):
    tell(DENSE, what)
    assert drive(only=[DENSE]).failed == [DENSE]


def test_stops_after_seconds_and_goes_on(drive, tell):
    tell(DENSE, "wait")
    begin = time.monotonic()
    summary = drive(seconds=3.0, jobs=1)
    assert time.monotonic() - begin < 20
    assert summary.open[0] == DENSE
    assert len(summary.open) == 4, "the others were not started"
    assert summary.failed == summary.done == []
    again = drive(jobs=1)
    assert len(again.done) == 4
    assert ["resume", DENSE, "None"] in tell()


def test_a_run_that_does_not_stop_is_killed(drive, tell, caplog):
    tell(DENSE, "deaf")
    begin = time.monotonic()
    summary = drive(only=[DENSE], seconds=3.0, grace=0.5)
    assert time.monotonic() - begin < 20
    assert summary.open == [DENSE]
    assert f"{DENSE}: killed" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_runs_with_a_checkpoint(drive, grid, tell, number):
    tell(DENSE, "wait")

    def send():
        deadline = time.monotonic() + 20
        while not tell() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    before = signal.getsignal(number)
    sender.start()
    summary = drive(only=[DENSE])
    sender.join()
    assert summary.open == [DENSE]
    assert (run_dir(grid, RunKey("words", "dense", "default", 0)).checkpoint / "state").exists()
    assert signal.getsignal(number) is before


def test_runs_spread_over_gpus(drive, tell):
    cuda = GridConfig.from_dict({**read_yaml("grid.yaml"), "training": {"device": "cuda"}})
    summary = drive(grid=cuda, only=(), places=find_places(2, {}), jobs=2)
    assert len(summary.done) == len(worklist(cuda))
    running: list[str] = []
    for event, _, gpu in tell():
        running.append(gpu) if event == "start" else running.remove(gpu)
        assert max(map(running.count, "01")) <= 2
    started = [gpu for event, _, gpu in tell() if event == "start"]
    assert sorted(started[:4]) == ["0", "0", "1", "1"]
    # seconds of runs that shared a GPU are told from others
    runs = [run_dir(cuda, task.key) for task in worklist(cuda)]
    assert {read_json(run.resources)["runs_at_once"] for run in runs} == {"2"}


def test_gpus_are_those_that_are_visible():
    assert [p.environment for p in find_places(2, {VISIBLE: "5, 7"})] == [
        {},
        {VISIBLE: "5"},
        {VISIBLE: "7"},
    ]
    assert [p.name for p in find_places(0, {VISIBLE: ""})] == ["CPU"]


def test_auto_takes_a_gpu_where_there_is_one(drive, tell):
    auto = GridConfig.from_dict({**read_yaml("grid.yaml"), "training": {"device": "auto"}})
    drive(grid=auto, only=[DENSE], places=find_places(1, {}))
    assert tell()[0] == ["start", DENSE, "0"]
    drive(grid=auto, only=["words/dense/default/seed1"], places=find_places(0, {}))
    assert tell()[-1] == ["end", "words/dense/default/seed1", "None"]


def test_cuda_without_a_gpu_is_refused_before_anything_starts(drive, tell):
    own = read_yaml("grid.yaml")
    own["overrides"] = {"spartex": {"training": {"device": "cuda"}}}
    with pytest.raises(ConfigError, match="words/spartex is to train on cuda, but torch sees no"):
        drive(grid=GridConfig.from_dict(own))
    assert tell() == []


def test_a_run_that_outlived_its_driver_is_not_started_twice(drive, tell, tmp_path, caplog):
    tell(DENSE, "wait")
    code = (
        "import sys; from pathlib import Path; from haste.grid import GridConfig;"
        "from haste.files import read_yaml; from haste.fleet.drive import drive;"
        "from haste.fleet.places import Place; from haste.fleet.worklist import select, worklist;"
        "grid = GridConfig.from_dict(read_yaml('grid.yaml'));"
        f"stub = lambda path: [sys.executable, {str(STUB)!r}, str(path), {str(tmp_path / 'told')!r}];"
        f"drive(grid, select(worklist(grid), [{DENSE!r}]), [Place('CPU')], jobs=1, command=stub)"
    )
    first = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not tell() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait()
    summary = drive(only=[DENSE])
    assert summary.open == [DENSE]
    assert "another process trains it" in caplog.text
    assert len(tell()) == 1


def test_the_command_line_trains_a_grid(tiny_grid):
    """Two runs of real training, as a person starts it; the second call finds all done."""
    run = tiny_grid.resolve(RunKey("tiny", "dense", "default", 0))
    command = [sys.executable, "-m", "haste", "drive", "--grid", "grid.yaml", "--jobs", "2"]
    said = [subprocess.run(command, capture_output=True, text=True, timeout=200) for _ in range(2)]
    assert [each.returncode for each in said] == [0, 0], said[0].stderr
    assert "tiny/dense/default/seed1: done, P@1 " in said[0].stderr
    assert "2 done, 0 failed, 0 open" in said[0].stderr
    assert "2 runs are done, 0 open" in said[1].stderr
    Path(run.inputs.tokens).unlink()
    Path("results/small/runs/tiny/dense/default/seed0/metrics.json").unlink()
    failed = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert failed.returncode == 1
    assert "haste: error: " in failed.stderr, "the run's log is shown"
