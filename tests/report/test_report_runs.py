import json

import pytest
from fake_grid import FakeGrid

from haste.errors import DataError
from haste.report.runs import load_run, load_runs, run_frame


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    fake = FakeGrid(
        tmp_path_factory.mktemp("runs"), methods=("haste", "omikuji"), documents=40, labels=60
    )
    fake.write()
    return fake


@pytest.fixture
def one(tmp_path):
    """A grid of one run that a test may damage."""
    fake = FakeGrid(tmp_path, methods=("haste",), seeds=(0,), documents=20, labels=30, epochs=5)
    fake.write()
    return fake.run_dir(next(fake.grid.main_runs()))


def test_one_row_a_run_with_everything(fake):
    runs = load_runs(fake.run_dir(key).root for key in fake.grid.main_runs())
    frame = run_frame(runs)
    assert list(frame["method"]) == ["haste"] * 3 + ["omikuji"]
    assert list(frame["seed"]) == [0, 1, 2, 0]
    written = json.loads(fake.run_dir(runs[1].key).metrics.read_text())
    assert frame["P@1"][1] == written["metrics"]["P@1"]
    assert frame["P@3 without reciprocal pairs"][1] == written["without_reciprocal_pairs"]["P@3"]
    assert list(frame["epoch_seconds"]) == [2.0, 3.0, 4.0, 2.0]
    assert frame["peak_train_bytes"][0] == 2**30
    assert frame["loss"][2] == pytest.approx(12.0, abs=1e-6)
    assert list(frame["converged"][:3]) == [True] * 3


def test_linear_methods_have_no_loss(fake):
    run = load_run(fake.run_dir(list(fake.grid.main_runs())[-1]).root)
    assert (run.loss, run.late_gain, run.converged, run.history) == (None, None, None, None)


def test_a_rising_precision_is_not_converged(tmp_path):
    fake = FakeGrid(
        tmp_path, methods=("haste",), seeds=(0,), documents=20, labels=30, rising=("haste",)
    )
    fake.write()
    run = load_run(fake.run_dir(next(fake.grid.main_runs())).root)
    assert run.late_gain == pytest.approx(4 / 3, abs=1e-3)  # a point of P@1 an epoch
    assert run.converged is False


@pytest.mark.parametrize("name", ["config", "metrics", "resources", "predictions", "history"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(one, name):
    path = getattr(one, name)
    path.unlink()
    with pytest.raises(DataError) as error:
        load_run(one.root)
    assert str(path) in str(error.value)
    assert str(one.metrics) in str(error.value)


def damage(path, **changes):
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **changes}))


def test_damaged_json_is_named(one):
    one.metrics.write_text(one.metrics.read_text()[:50])
    with pytest.raises(DataError, match=r"metrics.json: not a JSON file"):
        load_run(one.root)


def test_a_missing_metric_is_named(one):
    damage(one.metrics, metrics={"P@1": 3.0})
    with pytest.raises(DataError, match=r"metrics.json: damaged \(without P@3, "):
        load_run(one.root)


def test_a_stopped_run_is_refused(one):
    damage(one.resources, completed=False)
    with pytest.raises(
        DataError, match=r"resources.json: the run was stopped before its end.*make the run again"
    ):
        load_run(one.root)


def test_a_partial_history_is_refused(one):
    lines = one.history.read_text().splitlines()
    one.history.write_text("\n".join(lines[:4]) + "\n")
    with pytest.raises(DataError, match=r"history.csv: 3 of 5 epochs; the run is not complete"):
        load_run(one.root)


def test_a_history_without_a_column_is_refused(one):
    one.history.write_text(one.history.read_text().replace("loss", "lost"))
    with pytest.raises(DataError, match=r"history.csv: no column loss\."):
        load_run(one.root)


def test_a_loss_that_is_not_finite_is_refused(one):
    lines = one.history.read_text().splitlines()
    cells = lines[-1].split(",")
    lines[-1] = ",".join([*cells[:2], "nan", *cells[3:]])
    one.history.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="a loss that is not a finite number"):
        load_run(one.root)


def test_an_unknown_method_is_refused(one):
    one.config.write_text(one.config.read_text().replace("method: haste", "method: hasty"))
    with pytest.raises(
        DataError, match=r"config.yaml: methods: there is no method 'hasty'.*'haste'"
    ):
        load_run(one.root)
