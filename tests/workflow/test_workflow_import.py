"""Imported runs are up to date to Snakemake, though their weights are not there."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from workflow_project import GRID, Project, copy_workflow

from haste.files import write_json
from haste.grid import GridConfig, RunKey
from haste.runs import is_trained, run_dir
from haste.transfer import export_results, import_results
from small_grid import CORPUS, ORDER, write_run

NEW = {**GRID, "overrides": {"dense": {"training": {"epochs": 3}}}}


def trained(grid: GridConfig) -> list[RunKey]:
    return [key for key in grid.runs() if is_trained(key)]


@contextmanager
def same_age(path: Path) -> Iterator[None]:
    """What is written keeps the age of what Snakemake has seen there."""
    before = path.stat()
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def results_of_another_machine(
    settings: dict, out: Path, keys: Iterable[RunKey] | None = None
) -> None:
    """Runs of a grid (None: all but trials), in a zip; beside the data that lies in the working directory."""
    grid = GridConfig.from_dict(settings)
    for key in grid.runs() if keys is None else keys:
        if not is_trained(key):
            write_run(grid, key)
            continue
        config = grid.resolve(key)
        model, info = Path(config.inputs.model), Path(config.inputs.corpus, "corpus.json")
        with same_age(info):
            write_json(info, CORPUS)
        for path in map(Path, filter(None, (config.inputs.order, config.inputs.clusters))):
            with same_age(path):
                ORDER.save(path)
        (model / "config.json").write_text(json.dumps({"hidden_size": 384}))
        (model / "model.safetensors").write_text("weights")
        write_run(grid, key)
    export_results(grid, out)


@pytest.fixture
def elsewhere(finished: Project, tmp_path, monkeypatch) -> Project:
    """A checkout that has the data and nothing else, and does not know who made it."""
    project = copy_workflow(tmp_path / "elsewhere")
    project.configure(GRID)
    shutil.copytree(finished.root / "data", project.root / "data")
    monkeypatch.chdir(project.root)
    return project


@pytest.fixture
def archive(elsewhere, tmp_path) -> Path:
    """All runs; the folder is as before."""
    out = tmp_path / "runs.zip"
    results_of_another_machine(GRID, out)
    shutil.rmtree(elsewhere.root / "results")
    return out


def test_imported_runs_are_not_trained_again(elsewhere: Project, archive):
    grid = GridConfig.from_dict(GRID)
    before = elsewhere.jobs()
    assert before["train"] == len(trained(grid))
    found = import_results(archive, grid)
    assert len(found.taken) == len(grid.runs())
    after = elsewhere.jobs()
    assert not {"train", "baseline", "configure"} & set(after)
    assert after["table_main"] == after["table_claims"] == 1
    assert not list(Path("results").rglob("model.safetensors"))
    # by its path too, and everything is made in the end
    metrics = run_dir(grid, trained(grid)[0]).metrics
    assert elsewhere.jobs(str(metrics)) == {}
    made = elsewhere.snakemake("--cores", "2")
    assert made.returncode == 0, made.stdout[-3000:]
    assert elsewhere.jobs() == {}
    assert not [call for call in elsewhere.calls() if call[0] == "train"]


def all_trials_but_the_first(elsewhere: Project, folder: Path):
    """A grid with two trials a method, the keys of all, and a zip of those that another machine made."""
    settings = {**GRID, "tuning": {"epochs": 2, "seeds": [0], "trials": {"a": {}, "b": {}}}}
    elsewhere.configure(settings)
    grid = GridConfig.from_dict(settings)
    trials = list(grid.trial_runs())
    out = folder / "trials.zip"
    results_of_another_machine(settings, out, trials[1:])
    shutil.rmtree("results")
    return grid, trials, out


def test_imported_trials_are_not_trained_again(elsewhere: Project, tmp_path):
    """Neither weights nor predictions came with them."""
    grid, trials, out = all_trials_but_the_first(elsewhere, tmp_path)
    import_results(out, grid)
    assert not list(Path("results").rglob("predictions.npz"))
    # the one that was not finished there
    open_ones = {"configure": 1, "train": 1, "table_tuning": 1}
    assert elsewhere.jobs("table_tuning") == open_ones
    made = elsewhere.snakemake("--cores", "2", "table_tuning")
    assert made.returncode == 0, made.stdout[-3000:]
    assert elsewhere.jobs("table_tuning") == {}
    config = run_dir(grid, trials[0]).config
    assert [call for call in elsewhere.calls() if call[0] == "train"] == [
        ["train", "--", str(config)]
    ]


def test_a_table_of_fewer_trials_hides_none(elsewhere: Project, tmp_path):
    """One that `haste table tuning` has made, or that came with the project."""
    grid, trials, out = all_trials_but_the_first(elsewhere, tmp_path)
    table = grid.layout.table("tuning")
    table.parent.mkdir(parents=True)

    def make_by_hand() -> None:
        for suffix in ("csv", "md", "tex"):
            Path(f"{table}.{suffix}").write_text("of some of the trials")

    make_by_hand()
    assert elsewhere.jobs("tuning")["train"] == len(trials)
    import_results(out, grid)
    make_by_hand()
    asked = {"configure": 1, "train": 1, "table_tuning": 1}
    assert elsewhere.jobs("tuning") == {**asked, "tuning": 1}
    assert elsewhere.jobs("--force", "table_tuning") == asked


def test_weights_are_trained_when_asked_for(elsewhere: Project, archive):
    grid = GridConfig.from_dict(GRID)
    import_results(archive, grid)
    assert elsewhere.jobs(str(run_dir(grid, trained(grid)[0]).model)) == {"train": 1}


def test_newer_inputs_are_a_reason_to_train(elsewhere: Project, archive):
    grid = GridConfig.from_dict(GRID)
    import_results(archive, grid)
    order = Path(grid.resolve(RunKey("wordnet-smoke", "haste", "grouping-random", 0)).inputs.order)
    later = order.stat().st_mtime + 10_000
    os.utime(order, (later, later))
    assert elsewhere.jobs()["train"] == 1


def test_inputs_from_the_future_are_no_reason(elsewhere: Project, archive):
    """Clocks of two machines differ, and files keep the time of the one they came from."""
    grid = GridConfig.from_dict(GRID)
    order = Path(grid.resolve(RunKey("wordnet-smoke", "haste", "grouping-random", 0)).inputs.order)
    later = order.stat().st_mtime + 10_000
    os.utime(order, (later, later))
    import_results(archive, grid)
    assert "train" not in elsewhere.jobs()


def test_runs_that_snakemake_made_otherwise_are_replaced(
    finished: Project, tmp_path, monkeypatch, caplog
):
    """It remembers how; the command that the warning gives makes it forget."""
    monkeypatch.chdir(finished.root)
    shutil.copytree("results", tmp_path / "before")
    results_of_another_machine(NEW, tmp_path / "new.zip")
    shutil.rmtree("results")
    shutil.copytree(tmp_path / "before", "results")
    finished.configure(NEW)
    grid = GridConfig.from_dict(NEW)
    assert finished.jobs()["train"] == 2
    import_results(tmp_path / "new.zip", grid)
    assert finished.jobs()["configure"] == 2
    command = caplog.messages[-1].partition("snakemake ")[2].split()
    assert len(command) == 1 + len(grid.runs())
    forgotten = finished.snakemake(*command)
    assert forgotten.returncode == 0, forgotten.stdout[-3000:]
    jobs = finished.jobs()
    assert not {"configure", "train"} & set(jobs)
    assert jobs["table_main"] == 1


def test_tables_of_a_grid_that_is_under_way(elsewhere: Project, tmp_path):
    """Of the runs that have finished, until others come; none is trained."""
    elsewhere.configure({**GRID, "allow_partial": True})
    grid = GridConfig.from_dict(GRID)
    first, second = trained(grid)[:2], trained(grid)[2:]
    for name, keys in (("first", first), ("second", second)):
        results_of_another_machine(GRID, tmp_path / f"{name}.zip", keys)
        shutil.rmtree("results")
    import_results(tmp_path / "first.zip", grid)
    made = elsewhere.snakemake("--cores", "2")
    assert made.returncode == 0, made.stdout[-3000:]
    assert not [call for call in elsewhere.calls() if call[0] in ("train", "baseline")]
    assert Path("results/small/tables/ablation_fan_in.csv").is_file()
    assert elsewhere.jobs() == {}
    import_results(tmp_path / "second.zip", grid)
    jobs = elsewhere.jobs()
    assert not {"configure", "train", "baseline"} & set(jobs)
    assert jobs["table_main"] == jobs["ablation_fan_in"] == 1
