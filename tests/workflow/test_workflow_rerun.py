"""What is made again after a change, a failure or a kill: what depends on it and no more."""

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from workflow_project import GRID, SNAKEMAKE, Project, copy_workflow, job_counts, write_documents

from haste.grid import GridConfig
from haste.runs import is_trained, run_dir

CORPUS = "data/toys/corpus/corpus.json"

RUNS_FIGURES = {
    "figure_precision_memory",
    "figure_precision_by_decile",
    "figure_training_curves",
}


def changed(**changes) -> dict:
    return {**copy.deepcopy(GRID), **changes}


def test_nothing_to_do_when_all_is_made(finished: Project):
    assert finished.jobs() == {}


def test_comments_and_order_of_keys_change_nothing(finished: Project):
    config = finished.root / "config.yaml"
    finished.configure(dict(reversed(GRID.items())))
    config.write_text("# a word\n" + config.read_text())
    assert finished.jobs() == {}


def test_fan_in_of_one_method(finished: Project):
    finished.configure(changed(overrides={"haste": {"layer": {"fan_in": 128}}}))
    said = finished.snakemake("-n").stdout
    assert "before: 'layer.fan_in = 32' now: 'layer.fan_in = 128'" in said
    jobs = job_counts(said)
    # two seeds of the preset, four groupings; the variants of fan_in have their own
    assert jobs.pop("configure") == jobs.pop("train") == 6
    assert jobs == {
        "index": 1,
        "table_main": 1,
        "table_claims": 1,
        "ablation_grouping": 1,
        "ablation_fan_in": 1,
        "table_confusions": 1,
        "figure_ablations": 1,
        "table_runs": 1,
        **dict.fromkeys(RUNS_FIGURES, 1),
    }


def test_settings_that_decide_no_number_train_no_finished_run_again(finished: Project):
    grid = GridConfig.from_dict(GRID)
    trained = [key for key in grid.all_runs() if is_trained(key)]
    with contextlib.chdir(finished.root):
        for key in trained:
            run = run_dir(grid, key)
            # as `haste configure` and `haste train` write them; the stub's files say nothing
            for path, value in (
                (run.config, grid.run_settings(key)),
                (run.resources, {"completed": True}),
            ):
                times = path.stat()
                path.write_text(json.dumps(value))
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    finished.configure(
        changed(training={**GRID["training"], "checkpoint_minutes": 9, "threads": 2})
    )
    assert finished.jobs() == {}
    # one that has not finished is trained with what is said now
    with contextlib.chdir(finished.root):
        run_dir(grid, trained[0]).metrics.unlink()
    jobs = finished.jobs()
    assert jobs["configure"] == jobs["train"] == 1
    assert finished.jobs("--forceall")["train"] == len(trained)


def test_one_more_seed(finished: Project):
    finished.configure(changed(seeds=[0, 1, 2]))
    jobs = finished.jobs()
    assert jobs["train"] == 3
    assert {"table_main", "table_claims"} <= set(jobs)
    assert not {"ablation_grouping", "ablation_fan_in", "figure_ablations"} & set(jobs)


def test_one_more_ablation(finished: Project):
    finished.configure(changed(ablations=["grouping", "fan_in", "momentum_reset"]))
    jobs = finished.jobs()
    assert jobs == {
        "configure": 1,
        "train": 1,
        "ablation_momentum_reset": 1,
        "index": 1,
        "figure_ablations": 1,
        "table_runs": 1,
    }


def test_a_row_of_published_numbers_runs_nothing(finished: Project):
    finished.configure(changed(methods=[name for name in GRID["methods"] if name != "renee"]))
    assert finished.jobs() == {"table_main": 1, "table_claims": 1, "index": 1}


def test_another_head_makes_orders_again(finished: Project):
    finished.configure(changed(overrides={"haste": {"layer": {"head_ratio": 0.2}}}))
    jobs = finished.jobs()
    # semantic (2 seeds), balanced, frequency, frequency_shuffled, random
    assert jobs["group"] == 6
    assert jobs["train"] == 8
    assert {"figure_label_frequency", "table_grouping_cohesion"} <= set(jobs)
    assert "embed" not in jobs


def test_files_with_former_names_are_not_made_again(finished: Project):
    for path in finished.root.glob("data/*/corpus/*.reciprocal.npz"):
        path.rename(path.with_name(path.name.replace("reciprocal", "mirrored")))
    assert finished.jobs("--rerun-triggers", "mtime") == {}


def test_one_table_makes_only_what_it_needs(finished: Project):
    finished.configure(changed(training={"epochs": 3, "device": "cpu"}))
    jobs = finished.jobs("results/small/tables/ablation_grouping.md")
    assert jobs == {"configure": 5, "train": 5, "ablation_grouping": 1}


def test_where_a_run_is_trained_is_no_reason_to_train_it_again(project: Project):
    project.configure(changed(methods=["dense"], ablations=[], training={"device": "auto"}))
    run = "results/small/runs/wordnet-smoke/dense/default/seed0/metrics.json"
    done = project.snakemake("--cores", "2", run, CUDA_VISIBLE_DEVICES="fake")
    assert done.returncode == 0, done.stdout[-3000:]
    elsewhere = project.snakemake("-n", run, CUDA_VISIBLE_DEVICES="")
    shared = project.snakemake("-n", run, "--set-resources", "train:runs_per_gpu=5")
    for result in (elsewhere, shared):
        assert "Nothing to be done" in result.stdout


def test_a_deleted_figure_is_drawn_again(finished: Project):
    (finished.root / "results/small/figures/label_frequency.pdf").unlink()
    assert finished.jobs() == {"figure_label_frequency": 1, "index": 1}


def test_a_failed_run_keeps_its_checkpoint_and_goes_on(finished: Project):
    run = finished.root / "results/small/runs/wordnet-smoke/dense/default/seed1"
    finished.configure(changed(overrides={"dense": {"training": {"epochs": 3}}}))
    failed = finished.snakemake("--cores", "2", STUB_FAIL="dense/default/seed1")
    assert failed.returncode != 0
    assert "the stub was told to fail" in failed.stdout, "the run's log is shown"
    assert "Each job that failed is named above" in failed.stdout
    assert not (run / "metrics.json").exists(), "half-written outputs are deleted"
    assert (run / "checkpoint/state").exists()
    again = finished.snakemake("--cores", "2")
    assert again.returncode == 0, again.stdout[-3000:]
    assert (run / "metrics.json").read_text().startswith("resumed: True")
    log = (finished.root / "logs/small/wordnet-smoke/dense/default/seed1.log").read_text()
    assert re.findall(r"^== attempt (\d), 2.*: haste train -- ", log, re.M) == ["1", "2", "3"]
    assert "the stub was told to fail" in log, "a later attempt keeps what an earlier one said"
    assert finished.jobs() == {}


@pytest.mark.parametrize(("mode", "once"), [("default", False), ("subprocess", True)])
def test_only_the_snakemake_that_submits_tries_again(finished: Project, mode, once):
    """The one inside a cluster's job would multiply the attempts."""
    finished.configure(changed(overrides={"dense": {"training": {"epochs": 3}}}))
    before = len(finished.calls())
    metrics = "results/small/runs/wordnet-smoke/dense/default/seed1/metrics.json"
    options = ("--cores", "1", "--mode", mode, "--default-resources", "max_runtime=1440")
    failed = finished.snakemake(*options, "--", metrics, STUB_FAIL="dense/default/seed1")
    assert failed.returncode != 0
    trained = [call for call in finished.calls()[before:] if call[0] == "train"]
    assert (len(trained) == 1) is once


@pytest.fixture(scope="module", params=["data/toys", "."])
def own_session(request, tmp_path_factory):
    """The corpus of a folder of one's own, in which outputs lie, too."""
    project = copy_workflow(tmp_path_factory.mktemp("own") / "project")
    project.configure(
        {**GRID, "datasets": {"toys": {"path": request.param}}, "methods": ["omikuji"]}
    )
    write_documents(project.root / request.param)
    result = project.snakemake("--cores", "2", CORPUS)
    assert result.returncode == 0, result.stdout[-3000:]
    return project, request.param


@pytest.fixture
def own(own_session, tmp_path):
    """See `own_session`: the project and the folder of documents, a test's own."""
    session, path = own_session
    shutil.copytree(session.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project"), tmp_path / "project" / path


def test_outputs_and_files_of_editors_in_ones_own_folder_are_no_inputs(own):
    project, folder = own
    for name in (".trn.json.swp", ".DS_Store", "trn.json~", "notes.md", "more/x.npz"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("of no interest")
    assert project.jobs(CORPUS) == {}


@pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])
def test_more_documents_in_ones_own_folder_make_the_corpus_again(own, older):
    project, folder = own
    write_documents(folder, number=30)
    if older:  # as `mv` and `cp -p` leave them
        for path in folder.glob("*.json"):
            os.utime(path, (1e9, 1e9))
    assert project.jobs(CORPUS) == {"corpus": 1}


def half_written(path: Path, started: float) -> bool:
    return path.exists() and path.stat().st_mtime > started


def test_a_killed_workflow_goes_on(finished: Project):
    run = finished.root / "results/small/runs/wordnet-smoke/dense/default/seed1"
    finished.configure(changed(overrides={"dense": {"training": {"epochs": 3}}}))
    started = time.time()
    process = subprocess.Popen(
        [str(SNAKEMAKE), "--cores", "2"],
        cwd=finished.root,
        env=finished.environment(STUB_HANG="dense/default/seed1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    # the last that the stub writes before it hangs; Snakemake deleted the old one
    while not half_written(run / "history.csv", started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "make unlock" not in finished.snakemake("-n").stdout, "nobody was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (run / "metrics.json").exists(), "half-written, and still there"
    locked = finished.snakemake("--cores", "2")
    assert locked.returncode != 0
    assert "`snakemake --unlock` (or `make unlock`)" in locked.stdout
    unlocked = finished.snakemake("--unlock")
    assert unlocked.returncode == 0, unlocked.stdout[-3000:]
    again = finished.snakemake("--cores", "2")
    assert again.returncode == 0, again.stdout[-3000:]
    assert "make unlock" not in again.stdout
    assert (run / "metrics.json").read_text().startswith("resumed: True")
    config = str((run / "config.yaml").relative_to(finished.root))
    assert finished.calls().count(["train", "--", config]) == 2
