import json
import math
import re
from dataclasses import replace

import pytest
from fake_grid import FakeGrid

from haste.errors import DataError
from haste.report.runs import load_run, mean_late_gain


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


def test_linear_methods_have_no_loss(fake):
    run = load_run(fake.run_dir(list(fake.grid.main_runs())[-1]).root)
    assert (run.loss, run.late_gain, run.converged, run.history) == (None, None, None, None)
    assert mean_late_gain([run]) is None


def test_a_rising_precision_is_not_converged(tmp_path):
    fake = FakeGrid(
        tmp_path, methods=("haste",), seeds=(0,), documents=20, labels=30, rising=("haste",)
    )
    fake.write()
    run = load_run(fake.run_dir(next(fake.grid.main_runs())).root)
    assert run.late_gain == pytest.approx(4 / 3, abs=1e-3)  # a point of P@1 an epoch
    assert run.converged is False


def test_a_late_gain_that_is_unknown_leaves_the_mean_unknown(fake):
    run = load_run(fake.run_dir(next(fake.grid.main_runs())).root)
    unknown = replace(run, history=run.history.iloc[:1])
    assert mean_late_gain([run, run]) == pytest.approx(run.late_gain)
    assert math.isnan(mean_late_gain([run, unknown]))


@pytest.mark.parametrize("name", ["config", "metrics", "resources", "predictions", "history"])
def test_a_missing_file_is_named(one, name):
    path = getattr(one, name)
    path.unlink()
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_run(one.root)


def without(path, key):
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))


def rewrite(path, change):
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("file", "damage", "fact"),
    [
        ("metrics", lambda path: rewrite(path, lambda text: text[:50]), "not a JSON file"),
        ("metrics", lambda path: without(path, "backend"), "backend"),
        ("metrics", lambda path: rewrite(path, lambda t: t.replace("PSP@3", "PSP@4")), "PSP@3"),
        ("resources", lambda path: without(path, "completed"), "completed"),
        ("resources", lambda p: rewrite(p, lambda t: t.replace("true", "false")), "was stopped"),
        (
            "history",
            lambda p: rewrite(p, lambda t: t[: t.index("\n4,") + 1]),
            "expected 5 .* got 3",
        ),
        ("history", lambda path: rewrite(path, lambda text: text.replace("loss", "lost")), "loss"),
        ("history", lambda p: rewrite(p, lambda t: re.sub("5,50,[^,]+", "5,50,nan", t)), "got 4"),
        ("config", lambda p: rewrite(p, lambda t: t.replace("haste", "hasty")), "'hasty'.*'haste'"),
    ],
)
def test_what_is_damaged_is_named_with_what_is_wrong(one, file, damage, fact):
    damage(getattr(one, file))
    with pytest.raises(DataError, match=f"{getattr(one, file).name}: .*{fact}"):
        load_run(one.root)


def test_validation_is_that_of_the_weights_which_patience_kept(fake):
    run = load_run(fake.run_dir(next(fake.grid.main_runs())).root)
    history = run.history.copy()
    history[["P@1", "P@5", "PSP@5"]] = 1.0
    # two epochs of the same mean
    history.loc[1, ["P@1", "P@5"]] = [5.0, 3.0]
    history.loc[3, "P@1"] = 7.0
    last, best = (replace(run, history=history, keeps_best=kept) for kept in (False, True))
    assert last.validation()["P@1"] == 1.0
    assert best.validation() == {"P@1": 7.0, "P@5": 1.0, "PSP@5": 1.0}
