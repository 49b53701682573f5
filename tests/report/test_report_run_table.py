import csv
import math
import statistics

import pytest
from fake_grid import FakeGrid, load, make

from haste.files import read_json
from haste.report.render import markdown, write_table

MACHINE = {"python": "3.13", "torch": "2.13.0", "cpu": "some CPU x 2"}


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    fake = FakeGrid(
        tmp_path_factory.mktemp("runs"),
        methods=("spartex", "haste", "omikuji"),
        ablations=("sampling",),
        rising=("spartex",),
        resources={"haste": {"machine": MACHINE}, "omikuji": {"machine": {"python": "3.12"}}},
        documents=20,
        labels=30,
    )
    fake.write()
    return fake


@pytest.fixture(scope="module")
def runs(fake):
    return make(fake.grid, "runs")


def test_every_run_of_the_grid_has_a_row(fake, runs):
    keys = [
        tuple(row[key] for key in ("dataset", "method", "variant", "seed")) for row in runs.rows
    ]
    assert keys == [(k.dataset, k.method, k.variant, k.seed) for k in fake.grid.runs()]
    assert ("tiny", "haste", "sampling-with-replacement", 0) in keys


def test_rows_say_what_the_files_of_the_run_say(fake, runs):
    for key, row in zip(fake.grid.runs(), runs.rows, strict=True):
        files = fake.run_dir(key)
        metrics, resources = read_json(files.metrics), read_json(files.resources)
        assert {name: row[name] for name in metrics["metrics"] if name in row} == {
            name: value for name, value in metrics["metrics"].items() if name in row
        }
        assert row["P@1 without reciprocal pairs"] == metrics["without_reciprocal_pairs"]["P@1"]
        assert row["device"] == resources["device"]
        assert row["train_seconds"] == resources["seconds"]["train"]
        assert row["epoch_seconds"] == resources["seconds"]["epoch"]
        assert row["peak_train_bytes"] == resources["peak_bytes"]["train"]
        if key.method != "omikuji":
            history = list(csv.DictReader(files.history.read_text().splitlines()))
            assert row["validation P@1"] == float(history[-1]["P@1"])
            assert row["validation PSP@5"] == float(history[-1]["PSP@5"])
        assert row["epochs"] == (None if key.method == "omikuji" else 20)
        expected = {"spartex": "no", "haste": "yes", "omikuji": None}
        assert row["converged"] == expected[key.method]


def test_versions_and_hardware_have_columns_of_their_own(runs):
    rows = {row["method"]: row for row in runs.rows}
    for name, value in MACHINE.items():
        assert rows["haste"][f"machine {name}"] == value
    assert rows["omikuji"]["machine python"] == "3.12"
    # resources.json of spartex has none
    assert (rows["omikuji"]["machine torch"], rows["spartex"]["machine python"]) == (None, None)
    assert "| Machine torch |" in markdown("Runs", runs)


def test_the_csv_stands_for_the_runs(fake, runs, tmp_path):
    write_table(tmp_path / "runs", "Runs", runs)
    with (tmp_path / "runs.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    main = {row["method"]: row for row in make(fake.grid, "main").rows}
    for name in ("P@1", "PSP@5", "nDCG@5", "state_bytes", "loss"):
        values = [
            float(row[name])
            for row in rows
            if (row["method"], row["variant"]) == ("haste", "default")
        ]
        assert statistics.mean(values) == main["HASTE"][f"{name} mean"]


def test_columns_that_no_run_fills_are_left_out(tmp_path):
    fake = FakeGrid(tmp_path, methods=("popularity",), seeds=(0,), documents=20, labels=30)
    keys = {column.key for column in make(fake.write(), "runs").columns}
    assert not keys & {"loss", "late_gain", "converged", "epochs"}
    assert {"P@1", "device", "peak_train_bytes"} <= keys


def test_what_is_no_number_is_left_blank(tmp_path):
    fake = FakeGrid(tmp_path, methods=("haste",), seeds=(0,), epochs=1, documents=20, labels=30)
    grid = fake.write()
    (run,) = load(grid, "runs")[1].runs
    assert math.isnan(run.late_gain)  # one epoch has none
    assert "late_gain" not in make(grid, "runs").rows[0]
