"""Results leave one machine and are taken in on another, or refused."""

import hashlib
import io
import json
import logging
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from haste.cli import app
from haste.errors import ConfigError, DataError
from haste.files import read_npz, read_yaml, write_json, write_yaml
from haste.grid import GridConfig, RunKey
from haste.metrics.metrics import METRICS
from haste.metrics.names import HISTORY
from haste.report.load import Documents
from haste.report.runs import load_run
from haste.runs import identity, input_digest, is_done, run_dir
from haste.training.run import train_and_evaluate
from haste.transfer.exporting import export_results
from haste.transfer.importing import import_results

DENSE = RunKey("words", "dense", "default", 0)
OTHER = RunKey("words", "haste", "grouping-random", 0)
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


def rewrite(change, compression: int = zipfile.ZIP_STORED) -> None:
    """Put the members of the zip, as `change` (name -> content, in place) leaves them, into a new one."""
    with zipfile.ZipFile(ZIP) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(ZIP, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def signed(members: dict[str, bytes], name: str, content: bytes) -> None:
    """Replace a member and what the manifest says of it."""
    members[name] = content
    manifest = json.loads(members["manifest.json"])
    manifest["members"][name] = hashlib.sha256(content).hexdigest()
    members["manifest.json"] = json.dumps(manifest).encode()


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
        whole, cut = (read_npz(root / "predictions.npz") for root in (there, run.root))
        for name in ("ids", "scores"):
            np.testing.assert_array_equal(cut[name], whole[name][:, :10])
            assert cut[name].dtype == whole[name].dtype
        assert load_run(run.root).metrics["P@1"] == 50.0


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
        rows = json.loads(archive.read("manifest.json"))["runs"]
    assert {row["variant"]: row["columns"] for row in rows} == {"default": 10, "trial-slow": 0}
    Path("results").rename("results-of-the-gpu")
    found = import_results(ZIP, tuned)
    assert found.taken == ("words/dense/default/seed0", "words/dense/trial-slow/seed0")
    assert sorted(path.name for path in run.root.iterdir()) == [
        name for name in FILES if name != "predictions.npz"
    ]
    assert is_done(run, tuned.resolve(TRIAL))
    assert load_run(run.root).key == TRIAL
    with pytest.raises(DataError, match=r"trial-slow/seed0, which is no run of the grid small"):
        import_results(ZIP, grid)


def test_predictions_of_trials_stay_where_they_are(tuned, finish):
    finish(tuned, TRIAL)
    export_results(tuned, ZIP)
    with zipfile.ZipFile(ZIP) as archive:
        assert not [name for name in archive.namelist() if "predictions" in name]
    name = f"{PREFIX.replace('default', 'trial-slow')}predictions.npz"
    rewrite(lambda members: signed(members, name, b"x"))
    Path("results").rename("results-of-the-gpu")
    refused(tuned, r"trial-slow/seed0/predictions\.npz in the zip is of no run")


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
            members = set(archive.namelist()) - {"manifest.json"}
        assert {name.split("/")[3] for name in members} == expected
    with pytest.raises(ConfigError, match="--only trail-: no such run"):
        export_results(tuned, ZIP, only=("trail-",))


def test_manifest_says_what_is_there(exported):
    with zipfile.ZipFile(ZIP) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert set(archive.namelist()) == {*manifest["members"], "manifest.json"}
        for name, digest in manifest["members"].items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest
    assert (
        sorted(name.removeprefix(PREFIX) for name in manifest["members"] if PREFIX in name) == FILES
    )
    assert manifest["machine"]["python"]
    config = exported.resolve(DENSE)
    assert manifest["runs"][0] == {
        "dataset": "words",
        "method": "dense",
        "variant": "default",
        "seed": 0,
        "inputs": input_digest(config.inputs),
        "columns": 10,
    }


def test_only_finished_runs_leave(grid, make_inputs, finish):
    make_inputs(grid)
    with pytest.raises(
        DataError, match=r"no trained run of the grid is finished; nothing to export"
    ):
        export_results(grid, ZIP)
    assert list(Path("out").iterdir()) == [], "not half a zip either"
    finish(grid, DENSE)
    stopped, stale = finish(grid, OTHER), finish(grid, RunKey("words", "haste", "default", 0))
    write_json(stopped.resources, {"completed": False})
    stale.config.write_text(stale.config.read_text().replace("epochs: 2", "epochs: 3"))
    assert export_results(grid, ZIP) == 1
    run_dir(grid, DENSE).history.unlink()
    with pytest.raises(DataError, match=r"no trained run of the grid is finished"):
        export_results(grid, ZIP)


def test_predictions_stay_whole_where_pairs_leave_them(grid, make_inputs, finish):
    make_inputs(grid)
    finish(grid, DENSE)
    info = grid.layout.corpus("words").info
    for content, columns in (('{"filtered": true}', 100), ('{"filtered": false}', 7)):
        info.write_text(content)
        export_results(grid, ZIP, top=7)
        with zipfile.ZipFile(ZIP) as archive, archive.open(f"{PREFIX}predictions.npz") as file:
            assert np.load(file)["ids"].shape == (3, columns)


def edited_manifest(change):
    """An edit of the archive that changes its manifest, parsed, in place."""

    def edit(members):
        manifest = json.loads(members["manifest.json"])
        change(manifest)
        members["manifest.json"] = json.dumps(manifest).encode()

    return edit


REFUSED = {
    "another content": (
        lambda m: m.update({f"{PREFIX}metrics.json": b"{}"}),
        r"metrics\.json does not have the sha256 of manifest\.json",
    ),
    **{
        f"the name {name}": (
            lambda m, name=name: signed(m, name, b"x"),
            rf"{re.escape(name)} in the zip is of no run in the manifest",
        )
        for name in ("../outside", "/etc/outside", f"{PREFIX}../x", f"{PREFIX}model.safetensors")
    },
    "a run the manifest lacks": (
        lambda m: m.update({f"{PREFIX.replace('seed0', 'seed1')}metrics.json": b"{}"}),
        r"seed1/metrics\.json in the zip is of no run",
    ),
    "a run the grid lacks": (
        edited_manifest(lambda manifest: manifest["runs"][0].update(seed=77)),
        r"names words/dense/default/seed77, which is no run of the grid small",
    ),
    "no member": (
        lambda m: m.pop(f"{PREFIX}resources.json"),
        r"resources\.json in the zip is missing",
    ),
    "no digest of a member": (
        edited_manifest(lambda manifest: manifest["members"].pop(f"{PREFIX}metrics.json")),
        r"metrics\.json in manifest\.json is missing",
    ),
    "no manifest": (lambda m: m.pop("manifest.json"), r"there is no manifest\.json in it"),
    "an empty manifest": (lambda m: m.update({"manifest.json": b"{}"}), r"damaged.*grid: Field"),
    "another format": (
        edited_manifest(lambda manifest: manifest.update(format=9)),
        "of another version of haste .*format: Input should be 1 or 2",
    ),
    **{
        f"{field} {value!r}": (
            edited_manifest(lambda manifest, new={field: value}: manifest["runs"][0].update(new)),
            rf"manifest\.json is damaged, .*runs\.0\.{field}",
        )
        for field, value in (("inputs", ""), ("inputs", 3), ("columns", -1))
    },
}


@pytest.mark.parametrize(("change", "text"), REFUSED.values(), ids=REFUSED)
def test_what_export_does_not_write_is_refused(exported, change, text):
    rewrite(change)
    refused(exported, text)


@pytest.mark.usefixtures("exported")
def test_runs_of_another_grid_are_refused():
    fewer = GridConfig.from_dict({**read_yaml("grid.yaml"), "methods": ["haste"]})
    refused(fewer, r"words/dense/default/seed0, which is no run of the grid small")


def test_a_name_that_is_there_twice_is_refused(exported):
    with (
        zipfile.ZipFile(ZIP, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr(f"{PREFIX}metrics.json", b"{}")
    refused(exported, "a name is there twice")


def former(manifest):
    """The manifest as it was: other digests of inputs, and one of each configuration."""
    manifest["format"] = 1
    for run in manifest["runs"]:
        run.update(inputs="0" * 64, config="1" * 64)


def test_an_archive_of_the_former_format_is_taken_where_its_data_need_not_be_compared(exported):
    rewrite(edited_manifest(former))
    refused(exported, "2 runs .* an older version wrote the archive.* --without-data")
    assert len(import_results(ZIP, exported, without_data=True).taken) == 2


@pytest.mark.parametrize("is_same", [True, False])
def test_an_archive_of_the_former_format_is_compared_where_its_results_say_their_data(
    exported, is_same
):
    def change(members):
        for key in (DENSE, OTHER):
            name = f"runs/{key.name}/resources.json"
            trained_from = identity(exported.resolve(key))
            if not is_same:
                trained_from["inputs"] = "2" * 64
            resources = {**json.loads(members[name]), "run": trained_from}
            signed(members, name, json.dumps(resources).encode())
        edited_manifest(former)(members)

    rewrite(change)
    if is_same:
        assert len(import_results(ZIP, exported).taken) == 2
    else:
        refused(exported, "was trained from other inputs than those in .*222222222222 there")


def test_what_is_no_zip_is_refused(exported):
    ZIP.write_bytes(ZIP.read_bytes()[:-100])
    refused(exported, "not a zip, or damaged")
    ZIP.unlink()
    refused(exported, "no such file; give the zip that haste export-results wrote")


@pytest.mark.usefixtures("exported")
def test_another_configuration_is_refused():
    other = GridConfig.from_dict(
        {**read_yaml("grid.yaml"), "overrides": {"dense": {"training": {"epochs": 7}}}}
    )
    refused(
        other,
        r"dense/default/seed0/config\.yaml is not what the grid small says now: "
        r"training\.epochs is 2 there and 7 here",
    )


def test_a_configuration_that_is_none_is_refused(exported):
    rewrite(lambda members: signed(members, f"{PREFIX}config.yaml", yaml.safe_dump([1]).encode()))
    refused(exported, "is not what the grid small says now")


def test_other_inputs_are_refused(exported):
    Path(exported.resolve(OTHER).inputs.order).write_text("another order")
    refused(
        exported, "words/haste/grouping-random/seed0 was trained from other inputs than those in"
    )


def test_inputs_that_are_not_here_are_refused_unless_it_is_said(exported, caplog):
    Path(exported.resolve(OTHER).inputs.order).unlink()
    refused(
        exported, r"1 runs \(words/haste/grouping-random/seed0, .* take them unseen: --without-data"
    )
    assert len(import_results(ZIP, exported, without_data=True).taken) == 2
    assert "1 runs (words/haste/grouping-random/seed0, ...) are taken without" in caplog.text


def test_without_any_data(exported):
    shutil.rmtree("data")
    refused(exported, "2 runs .* cannot be compared with their data, which is not all here")
    assert len(import_results(ZIP, exported, without_data=True).taken) == 2


def test_runs_whose_inputs_are_gone_do_not_leave(grid, make_inputs, finish, caplog):
    make_inputs(grid)
    for key in (DENSE, OTHER):
        finish(grid, key)
    Path(grid.resolve(OTHER).inputs.order).unlink()
    assert export_results(grid, ZIP) == 1
    assert "words/haste/grouping-random/seed0: its inputs are not all here" in caplog.text


def changed(name: str, change) -> bytes:
    """A member of the archive with its JSON changed in place."""
    with zipfile.ZipFile(ZIP) as archive:
        value = json.loads(archive.read(f"{PREFIX}{name}"))
    change(value)
    return json.dumps(value).encode()


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def predictions(ids=None, scores=None) -> bytes:
    """As they are in the archive, but for what is given."""
    own = np.tile(np.arange(10, dtype=np.int32), (3, 1)) if ids is None else ids
    return npz(ids=own, scores=-own.astype(np.float32) if scores is None else scores)


def large_header() -> bytes:
    """An .npz whose arrays say that they are large."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, descr in (("ids", "<i4"), ("scores", "<f4")):
            header = io.BytesIO()
            described = {"descr": descr, "fortran_order": False, "shape": (10**12, 10)}
            np.lib.format.write_array_header_1_0(header, described)
            archive.writestr(f"{name}.npy", header.getvalue())
    return out.getvalue()


GARBAGE = {
    "metrics.json": [
        lambda: b"hello",
        lambda: b"[]",
        lambda: b"[" * 100_000,
        lambda: b"\xff",
        lambda: changed("metrics.json", lambda value: value.pop("deciles")),
        lambda: changed("metrics.json", lambda value: value["metrics"].pop("P@1")),
        lambda: changed("metrics.json", lambda value: value["metrics"].update({"P@1": "high"})),
        lambda: changed("metrics.json", lambda value: value["metrics"].update({"P@1": 100.1})),
        lambda: changed("metrics.json", lambda value: value["metrics"].update({"P@1": -1})),
        lambda: changed("metrics.json", lambda value: value["metrics"].update({"P@1": True})),
        lambda: changed("metrics.json", lambda value: value["metrics"].update({"P@1": np.nan})),
        lambda: changed(
            "metrics.json", lambda value: value.update(without_reciprocal_pairs={"P@1": 1e3})
        ),
        lambda: changed("metrics.json", lambda value: value.update(deciles=[{"decile": 1}])),
        lambda: changed("metrics.json", lambda value: value.update(backend=None)),
    ],
    "resources.json": [
        lambda: b"hello",
        lambda: b"{}",
        lambda: changed("resources.json", lambda value: value.update(completed=1)),
        lambda: changed("resources.json", lambda value: value.pop("seconds")),
        lambda: changed("resources.json", lambda value: value.update(device=0)),
        lambda: changed("resources.json", lambda value: value.update(seconds={"train": -1})),
        lambda: changed("resources.json", lambda value: value.update(layer_bytes=np.inf)),
    ],
    "history.csv": [
        lambda: b"hello",
        lambda: b"",
        lambda: b"epoch,step,loss\n1,1,1\n2,2,1\n",
        lambda: HEADER + b"0,0,1.0,0.1,1.0,,,,0\n",
        lambda: HEADER + b"0,0,nan,0.1,1.0,,,,0\n" * 2,
        lambda: HEADER + b"0,0,1.0,0.1,1.0,101,,,0\n" * 2,
        lambda: HEADER + b"0,0,,0.1,1.0,,,,0\n" * 2,
        lambda: HEADER + b"0\n" * 2,
    ],
    "predictions.npz": [
        lambda: b"hello",
        large_header,
        lambda: npz(ids=np.zeros((3, 10), np.int32)),
        lambda: npz(ids=np.zeros(3, object), scores=np.zeros((3, 10), np.float32)),
        lambda: predictions(np.tile(np.arange(10), (3, 1))),
        lambda: predictions(np.tile(np.arange(9, dtype=np.int32), (3, 1))),
        lambda: predictions(np.tile(np.arange(10, dtype=np.int32), (4, 1))),
        lambda: predictions(np.tile(np.arange(95, 105, dtype=np.int32), (3, 1))),
        lambda: predictions(np.tile(np.arange(-2, 8, dtype=np.int32), (3, 1))),
        lambda: predictions(np.zeros((3, 10), np.int32)),
        lambda: predictions(scores=np.full((3, 10), np.nan, np.float32)),
        lambda: predictions(scores=np.zeros((3, 10))),
    ],
}
HEADER = ",".join(HISTORY).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "make"), [(name, make) for name, contents in GARBAGE.items() for make in contents]
)
def test_contents_that_no_training_writes_are_refused(exported, name, make):
    content = make()
    rewrite(lambda members: signed(members, f"{PREFIX}{name}", content))
    refused(exported, rf"{name} is not what training writes \(.*\); nothing was taken")


def test_what_unpacks_to_far_more_than_results_do_is_refused(exported):
    large = b" " * (65 << 20)
    rewrite(lambda members: signed(members, f"{PREFIX}history.csv", large), zipfile.ZIP_DEFLATED)
    refused(exported, r"unpacks to 65 MiB from 0\.1 MiB, as no results do; nothing was taken")


def test_a_configuration_of_aliases_is_refused_at_once(exported):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    bomb = "\n".join(lines).encode()
    rewrite(lambda members: signed(members, f"{PREFIX}config.yaml", bomb))
    refused(exported, r"config\.yaml, line \d+: the alias")


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


def test_ten_predictions_do_for_the_paired_bootstrap(tiny_grid):
    """Trained for real: every metric that is compared document by document is that of metrics.json."""
    keys = tiny_grid.runs()
    for key in keys:
        run, config = run_dir(tiny_grid, key), tiny_grid.resolve(key)
        write_yaml(run.config, config.as_dict())
        train_and_evaluate(config, run)
    export_results(tiny_grid, ZIP)
    Path("results").rename("results-of-the-gpu")
    import_results(ZIP, tiny_grid)
    runs = [load_run(run_dir(tiny_grid, key).root) for key in keys]
    assert runs[0].predictions().shape[1] == 10
    documents = Documents(tiny_grid.layout.corpus("tiny"))
    compared = [name for name in METRICS if not name.startswith("R@")]
    for name in compared:
        assert documents.values(runs[0], name).mean() == pytest.approx(runs[0].metrics[name])
        interval = documents.difference(runs[:1], runs[1:], name)
        assert interval.low <= interval.difference <= interval.high
