"""Results leave one machine and are taken in on another, or refused."""

import json
import logging
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from haste.cli import app
from haste.errors import ConfigError, DataError
from haste.files import read_json, read_npz, read_yaml, write_json, write_yaml
from haste.grid import GridConfig, RunKey
from haste.labels.order import LabelOrder
from haste.metrics.metrics import METRICS
from haste.paths import RunDir
from haste.report.load import Documents
from haste.report.runs import load_run
from haste.run_lock import RunLockedError, locked
from haste.runs import IDENTITY, is_done, is_finished, run_dir
from haste.training.run import train_and_evaluate
from haste.transfer import export_results, import_results

DENSE = RunKey("words", "dense", "default", 0)
OTHER = RunKey("words", "haste", "grouping-random", 0)
LINEAR = RunKey("words", "popularity", "default", 0)
TRIAL = RunKey("words", "dense", "trial-slow", 0)
PREFIX = "runs/words/dense/default/seed0/"
ZIP = Path("out/runs.zip")
FILES = ["config.yaml", "history.csv", "metrics.json", "predictions.npz", "resources.json"]


@pytest.fixture
def exported(grid, make_inputs, finish) -> GridConfig:
    """Two finished runs of the grid in ZIP, and their inputs; the runs are gone."""
    make_inputs(grid)
    for key in (DENSE, OTHER):
        finish(grid, key)
    export_results(grid, ZIP)
    Path("results").rename("results-of-the-gpu")
    return grid


def rewrite(change) -> None:
    """Put the members of the zip, as `change` (name -> content, in place) leaves them, into a new one."""
    with zipfile.ZipFile(ZIP) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(ZIP, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refused(grid: GridConfig, text: str) -> None:
    """Importing says `text` and has written nothing."""
    with pytest.raises(DataError, match=text) as error:
        import_results(ZIP, grid)
    assert str(ZIP) in str(error.value)
    assert not Path("results").exists()


def test_there_and_back(exported):
    found = import_results(ZIP, exported)
    assert found.taken == ("words/dense/default/seed0", "words/haste/grouping-random/seed0")
    assert found.kept == ()
    for key in (DENSE, OTHER):
        run = run_dir(exported, key)
        there = Path("results-of-the-gpu", *run.root.parts[1:])
        assert is_done(run, exported.resolve(key))
        assert sorted(path.name for path in run.root.iterdir()) == FILES
        for name in set(FILES) - {"predictions.npz"}:
            assert (run.root / name).read_bytes() == (there / name).read_bytes()
        before, after = (read_npz(root / "predictions.npz") for root in (there, run.root))
        for name in ("ids", "scores"):
            np.testing.assert_array_equal(after[name], before[name], strict=True)
        assert load_run(run.root).metrics["P@1"] == 50.0


@pytest.fixture
def linear(grid, make_inputs, finish) -> RunDir:
    """A finished run of a linear method, which reads a corpus alone, in ZIP, and gone."""
    make_inputs(grid)
    run = finish(grid, LINEAR)
    export_results(grid, ZIP)
    Path("results").rename("results-of-there")
    return run


def test_runs_of_linear_methods_come_along(grid, linear):
    assert import_results(ZIP, grid).taken == (LINEAR.name,)
    assert is_finished(grid, LINEAR)
    assert load_run(linear.root).metrics["P@1"] == 50.0
    assert not linear.history.exists()
    assert grid.layout.corpus("words").info.stat().st_mtime < linear.metrics.stat().st_mtime
    assert import_results(ZIP, grid).kept == (LINEAR.name,)


@pytest.mark.usefixtures("linear")
def test_runs_of_linear_methods_on_another_corpus_are_refused(grid):
    info = grid.layout.corpus("words").info
    write_json(info, {**read_json(info), "n_labels": 91})
    refused(grid, "words/popularity/default/seed0: .* another corpus")
    info.unlink()
    refused(grid, r"1 runs \(words/popularity/default/seed0, .* --without-data")
    assert import_results(ZIP, grid, without_data=True).taken == (LINEAR.name,)


@pytest.mark.usefixtures("linear")
def test_half_an_identity_of_a_linear_run_is_refused(grid):
    def change(members):
        name = f"runs/{LINEAR.name}/resources.json"
        members[name] = json.dumps({**json.loads(members[name]), IDENTITY: {"config": {}}}).encode()

    rewrite(change)
    refused(grid, "resources.json: .*damaged|inputs")


@pytest.fixture
def tuned(grid, make_inputs) -> GridConfig:
    """The grid with trials, and its inputs."""
    settings = {
        **read_yaml("grid.yaml"),
        "tuning": {"epochs": 2, "trials": {"slow": {}, "fast": {}}},
    }
    write_yaml("grid.yaml", settings)
    make_inputs(grid)
    return GridConfig.from_dict(settings)


def test_trials_come_along_without_predictions(grid, tuned, finish):
    finish(tuned, DENSE)
    run = finish(tuned, TRIAL)
    # as where it was taken in
    run.predictions.unlink()
    assert export_results(tuned, ZIP) == 2
    with zipfile.ZipFile(ZIP) as archive:
        predictions = [name for name in archive.namelist() if "predictions" in name]
    assert predictions == [f"{PREFIX}predictions.npz"]
    Path("results").rename("results-of-the-gpu")
    found = import_results(ZIP, tuned)
    assert found.taken == ("words/dense/default/seed0", "words/dense/trial-slow/seed0")
    assert sorted(path.name for path in run.root.iterdir()) == [
        name for name in FILES if name != "predictions.npz"
    ]
    assert is_done(run, tuned.resolve(TRIAL))
    assert load_run(run.root).key == TRIAL
    with pytest.raises(DataError, match=r"trial-slow/seed0/\S+ is of no run of the grid small"):
        import_results(ZIP, grid)


def test_a_run_that_lacks_a_file_stays_and_the_others_leave(tuned, finish, caplog):
    finish(tuned, DENSE).predictions.unlink()
    finish(tuned, TRIAL)
    assert export_results(tuned, ZIP) == 1
    assert "predictions.npz: no such file, though the run is finished" in caplog.text
    with zipfile.ZipFile(ZIP) as archive:
        assert not [name for name in archive.namelist() if "default" in name]


def test_only_what_is_asked_for_leaves(tuned, finish):
    with pytest.raises(DataError, match=r"grid that --only trial-\* names is finished; nothing to"):
        export_results(tuned, ZIP, only=("trial-*",))
    for key in (DENSE, OTHER, TRIAL):
        finish(tuned, key)
    for only, expected in (
        (("trial-*",), {"trial-slow"}),
        (("dense",), {"default"}),
        (("dense", "trial-*"), {"default", "trial-slow"}),
        ((), {"default", "grouping-random", "trial-slow"}),
    ):
        assert export_results(tuned, ZIP, only=only) == len(expected)
        with zipfile.ZipFile(ZIP) as archive:
            members = set(archive.namelist())
        assert {name.split("/")[3] for name in members} == expected
    with pytest.raises(ConfigError, match="--only trail-: no such run"):
        export_results(tuned, ZIP, only=("trail-",))


def test_only_finished_runs_leave(grid, make_inputs, finish):
    make_inputs(grid)
    with pytest.raises(DataError, match=r"no run of the grid is finished; nothing to export"):
        export_results(grid, ZIP)
    assert list(Path("out").iterdir()) == [], "not half a zip either"
    finish(grid, DENSE)
    stopped, stale = finish(grid, OTHER), finish(grid, RunKey("words", "haste", "default", 0))
    write_json(stopped.resources, {"completed": False})
    stale.config.write_text(stale.config.read_text().replace("epochs: 2", "epochs: 3"))
    assert export_results(grid, ZIP) == 1
    run_dir(grid, DENSE).history.unlink()
    with pytest.raises(DataError, match=r"no run of the grid is finished"):
        export_results(grid, ZIP)


def test_predictions_stay_whole_where_pairs_leave_them(grid, make_inputs, finish):
    make_inputs(grid)
    info = grid.layout.corpus("words").info
    for content, columns in (('{"filtered": true}', 100), ('{"filtered": false}', 7)):
        info.write_text(content)
        finish(grid, DENSE)
        export_results(grid, ZIP, top=7)
        with zipfile.ZipFile(ZIP) as archive, archive.open(f"{PREFIX}predictions.npz") as file:
            assert np.load(file)["ids"].shape == (3, columns)


NAMES = ("../outside", "/etc/outside", f"{PREFIX}../x", f"{PREFIX}model.safetensors")
REFUSED = {
    **{
        name: (lambda m, name=name: m.update({name: b"x"}), "is of no run of the grid small")
        for name in (*NAMES, f"{PREFIX.replace('seed0', 'seed77')}metrics.json")
    },
    "no member": (lambda m: m.pop(f"{PREFIX}resources.json"), r"resources\.json is missing"),
    "no metrics": (
        lambda m: m.update({f"{PREFIX}metrics.json": b"{}"}),
        r"dense/default/seed0: metrics\.json: not the metrics of a run",
    ),
    "stopped": (
        lambda m: m.update({f"{PREFIX}resources.json": b'{"completed": false}'}),
        "the run was stopped before its end",
    ),
    "half an identity": (
        lambda m: m.update(
            {f"{PREFIX}resources.json": b'{"completed": true, "run": {"inputs": ""}}'}
        ),
        r"resources\.json: not the resources of a run",
    ),
    "half a history": (
        lambda m: m.update({f"{PREFIX}history.csv": m[f"{PREFIX}history.csv"][:-20]}),
        "history.csv: expected 2 epochs",
    ),
    "no configuration": (
        lambda m: m.update({f"{PREFIX}config.yaml": b"[1]"}),
        "the configuration of words/dense/default/seed0 is not what the grid small says now",
    ),
}


@pytest.mark.parametrize("value", [100.1, -1, float("nan"), "high", True])
def test_metrics_that_are_no_percentages_are_refused(exported, value):
    def change(members):
        metrics = json.loads(members[f"{PREFIX}metrics.json"])
        metrics["metrics"]["P@1"] = value
        members[f"{PREFIX}metrics.json"] = json.dumps(metrics).encode()

    rewrite(change)
    refused(exported, "P@1 is .*, not a percentage")


def test_what_unpacks_to_far_more_than_results_do_is_refused(exported):
    with zipfile.ZipFile(ZIP, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * (65 << 20))
    refused(exported, "more than 100 for each of its own, as no results do")


@pytest.mark.parametrize(("change", "text"), REFUSED.values(), ids=REFUSED)
def test_what_export_does_not_write_is_refused(exported, change, text):
    rewrite(change)
    refused(exported, text)


def test_a_damaged_member_is_refused(exported):
    content = bytearray(ZIP.read_bytes())
    content[content.index(b"metrics.json") + 40] ^= 255
    ZIP.write_bytes(content)
    refused(exported, "not a zip by haste export-results")


@pytest.mark.usefixtures("exported")
def test_runs_of_another_grid_are_refused():
    fewer = GridConfig.from_dict({**read_yaml("grid.yaml"), "methods": ["haste"]})
    refused(fewer, "words/dense/default/seed0/.* is of no run of the grid small")


def test_an_archive_by_an_earlier_version_has_a_manifest_more(exported):
    rewrite(lambda members: members.update({"manifest.json": b"{}"}))
    assert len(import_results(ZIP, exported).taken) == 2


def test_results_that_do_not_name_their_data_are_not_compared(exported):
    def change(members):
        name = f"{PREFIX}resources.json"
        resources = json.loads(members[name])
        members[name] = json.dumps({**resources, IDENTITY: None}).encode()

    rewrite(change)
    refused(exported, "1 runs .* which their results do not name.* --without-data")
    assert len(import_results(ZIP, exported, without_data=True).taken) == 2


def test_what_is_no_zip_is_refused(exported):
    ZIP.write_bytes(ZIP.read_bytes()[:-100])
    refused(exported, "not a zip by haste export-results")
    ZIP.unlink()
    refused(exported, "no such file. To make it: haste export-results")


def test_a_damaged_list_of_members_is_refused(exported):
    whole = ZIP.read_bytes()
    # where the list begins: members would lie before the file's begin, which the system refuses
    content = bytearray(whole)
    content[-4] = 255
    ZIP.write_bytes(content)
    refused(exported, "cannot be read")
    # a name that says it is UTF-8
    content = bytearray(whole)
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 9] |= 8
    content[entry + 46] = 254
    ZIP.write_bytes(content)
    refused(exported, "not a zip by haste export-results .UnicodeDecodeError")


def test_files_of_any_time_leave(grid, make_inputs, finish):
    make_inputs(grid)
    run = finish(grid, DENSE)
    os.utime(run.history, (0, 0))
    assert export_results(grid, ZIP) == 1


@pytest.mark.usefixtures("exported")
def test_another_configuration_is_refused():
    other = GridConfig.from_dict(
        {**read_yaml("grid.yaml"), "overrides": {"dense": {"training": {"epochs": 7}}}}
    )
    refused(
        other,
        r"dense/default/seed0 is not what the grid small says now: "
        r"training\.epochs is 2 there and 7 here",
    )


def test_other_inputs_are_refused(exported):
    path = exported.resolve(OTHER).inputs.order
    replace(LabelOrder.load(path), group_size=32).save(path)
    refused(exported, "words/haste/grouping-random/seed0: .* other inputs than are now in")


def test_inputs_that_are_not_here_are_refused_unless_it_is_said(exported, caplog):
    Path(exported.resolve(OTHER).inputs.order).unlink()
    refused(
        exported, r"1 runs \(words/haste/grouping-random/seed0, .* take them unseen: --without-data"
    )
    assert len(import_results(ZIP, exported, without_data=True).taken) == 2
    assert "1 runs (words/haste/grouping-random/seed0, ...) are taken without" in caplog.text


def test_without_any_data(exported):
    shutil.rmtree("data")
    refused(exported, "2 runs .* cannot be compared with their data")
    assert len(import_results(ZIP, exported, without_data=True).taken) == 2


def test_finished_runs_are_left_alone(exported, finish, caplog):
    caplog.set_level(logging.INFO)
    own = finish(exported, DENSE, precision=77.0)
    before = own.metrics.read_bytes(), own.metrics.stat().st_mtime_ns
    found = import_results(ZIP, exported)
    assert found.kept == ("words/dense/default/seed0",)
    assert found.taken == ("words/haste/grouping-random/seed0",)
    assert (own.metrics.read_bytes(), own.metrics.stat().st_mtime_ns) == before
    assert own.model.exists()
    assert "words/dense/default/seed0: finished here already; left alone" in caplog.text


def test_a_run_that_is_being_trained_is_left_to_its_process(exported):
    run = run_dir(exported, DENSE)
    with locked(run.root), pytest.raises(RunLockedError, match=str(run.root)):
        import_results(ZIP, exported)
    assert not run.metrics.exists()
    assert set(import_results(ZIP, exported).taken) == {DENSE.name, OTHER.name}


def test_an_unfinished_run_is_replaced_with_all_that_is_stale(exported, finish, caplog):
    own = finish(exported, DENSE)
    own.metrics.unlink()
    own.checkpoint.mkdir()
    (own.checkpoint / "state.safetensors").touch()
    benchmark = Path("logs/small/words/dense/default/seed0.tsv")
    benchmark.parent.mkdir(parents=True)
    benchmark.touch()
    import_results(ZIP, exported)
    assert is_done(own, exported.resolve(DENSE))
    assert not any(path.exists() for path in (own.model, own.checkpoint, benchmark))
    assert f"snakemake --cleanup-metadata {own.config}" in caplog.text


def test_times_are_those_of_outputs(exported):
    import_results(ZIP, exported)
    run = run_dir(exported, DENSE)
    outputs = [run.root / name for name in FILES if name != "config.yaml"]
    oldest = min(path.stat().st_mtime for path in outputs)
    assert run.config.stat().st_mtime < oldest
    assert exported.layout.corpus("words").info.stat().st_mtime < oldest


@pytest.mark.usefixtures("exported")
def test_the_commands(caplog):
    caplog.set_level(logging.INFO)
    said = CliRunner().invoke(app, ["import-results", str(ZIP), "--grid", "grid.yaml"])
    assert said.exit_code == 0, said.output
    assert "2 runs imported, 0 were finished before" in caplog.text
    again = ["export-results", "--grid", "grid.yaml", "--out", "again.zip", "--top"]
    assert CliRunner().invoke(app, [*again, "5"]).exit_code == 0
    assert "wrote again.zip: 2 runs" in caplog.text
    refused = CliRunner().invoke(app, [*again, "4"])
    assert refused.exit_code == 2, "tables read five"
    some = [*again, "5", "--only", "haste"]
    assert CliRunner().invoke(app, some).exit_code == 0
    assert "wrote again.zip: 1 runs" in caplog.text


@pytest.mark.parametrize("top", [100, 10])
def test_predictions_do_for_the_paired_bootstrap(tiny_grid, top):
    """Trained for real: every metric that is compared document by document is that of metrics.json."""
    keys = tiny_grid.runs()
    for key in keys:
        run, config = run_dir(tiny_grid, key), tiny_grid.resolve(key)
        write_yaml(run.config, config.as_dict())
        train_and_evaluate(config, run)
    export_results(tiny_grid, ZIP, top)
    Path("results").rename("results-of-the-gpu")
    import_results(ZIP, tiny_grid)
    runs = [load_run(run_dir(tiny_grid, key).root) for key in keys]
    assert runs[0].predictions().shape[1] == top
    documents = Documents(tiny_grid.layout.corpus("tiny"))
    for name in METRICS:
        interval = documents.difference(runs[:1], runs[1:], name)
        assert interval.low <= interval.difference <= interval.high
        assert interval.difference == pytest.approx(runs[0].metrics[name] - runs[1].metrics[name])
        assert documents.by_document(runs, name) is (name != "R@100" or top == 100)
        if not documents.by_document(runs, name):
            # of one seed alone there is nothing to draw from
            assert interval.low == interval.high
