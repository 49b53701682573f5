import csv
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fake_grid import FakeGrid, make

from haste.errors import DataError
from haste.files import read_json, write_json
from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.presets import methods
from haste.report.render import markdown, write_table
from haste.runs import run_dir
from haste.transfer import import_results

ROOT = Path(__file__).parents[2]
TUNING = {
    "seeds": [2],
    "epochs": 4,
    "trials": {
        "a": {"training": {"learning_rate": 0.02}},
        "b": {"training": {"learning_rate": 0.05}, "encoder": {"learning_rate": 0.0002}},
    },
    "base": {"dense": {"layer": {"dropout": 0.5}}},
    "scale": {"elmo-bf16": {"training.learning_rate": 10}},
}


def made_up(root, **changes):
    settings = {
        "methods": ("dense", "elmo-bf16", "haste", "omikuji"),
        "tuning": TUNING,
        "hit_rate": {"dense/trial-a": 0.2, "haste/trial-a": 0.8, "haste/trial-b": 0.3},
        "seeds": (0,),
        "documents": 20,
        "labels": 30,
    }
    return FakeGrid(root, **(settings | changes))


def table(grid, name="tuning"):
    return make(grid, name)


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    fake = made_up(tmp_path_factory.mktemp("tuning"))
    fake.write()
    return fake


@pytest.fixture(scope="module")
def tuning(fake):
    return table(fake.grid)


def test_one_row_a_method_and_trial(tuning):
    assert [(row["method"], row["trial"]) for row in tuning.rows] == [
        (title, trial) for title in ("Dense", "ELMO (bf16)", "HASTE") for trial in ("a", "b")
    ]


def test_rows_say_what_the_trials_measured(fake, tuning):
    for key, row in zip(fake.grid.trial_runs(), tuning.rows, strict=True):
        metrics = read_json(fake.run_dir(key).metrics)
        assert metrics["documents"] == 20
        values = [metrics["metrics"][name] for name in ("P@1", "P@5", "PSP@5")]
        assert [row[name] for name in ("P@1", "P@5", "PSP@5")] == values
        assert row["mean"] == pytest.approx(sum(values) / 3)
        assert row["epochs"] == 4
        assert row["loss"] == pytest.approx(10 + 2 + 90 * 0.3**3)


def test_settings_are_those_the_trial_trained_with(tuning):
    settings = {(row["method"], row["trial"]): row["settings"] for row in tuning.rows}
    assert settings["HASTE", "a"] == "training.learning_rate 0.02"
    assert settings["HASTE", "b"] == "encoder.learning_rate 0.0002, training.learning_rate 0.05"
    assert settings["ELMO (bf16)", "a"] == "training.learning_rate 0.2"
    assert settings["Dense", "a"] == "layer.dropout 0.5, training.learning_rate 0.02"


def test_one_trial_of_each_method_is_marked(tuning):
    marked = {row["method"]: row["trial"] for row in tuning.rows if row["chosen"]}
    # ELMO's two are the same run here: the first
    assert marked == {"Dense": "b", "ELMO (bf16)": "a", "HASTE": "a"}
    assert sum(bool(row["chosen"]) for row in tuning.rows) == 3
    line = next(x for x in markdown("Trials", tuning).splitlines() if x.startswith("| HASTE | a |"))
    assert line.endswith("| chosen |")


def test_all_three_metrics_choose(tmp_path):
    fake = made_up(tmp_path, methods=("haste",))
    grid = fake.write()
    for key, values in zip(
        grid.trial_runs(), ((50.0, 20.0, 20.0), (49.0, 22.0, 20.5)), strict=True
    ):
        path = fake.run_dir(key).metrics
        metrics = read_json(path)
        metrics["metrics"] |= dict(zip(("P@1", "P@5", "PSP@5"), values, strict=True))
        write_json(path, metrics)
    assert [row["chosen"] for row in table(grid).rows] == ["", "chosen"]


def several(root):
    """Two trials of two seeds: b is the better one of the first seed, a of the two together."""
    fake = made_up(root, methods=("haste",), tuning={**TUNING, "seeds": [2, 3]})
    grid = fake.write()
    for key, value in zip(grid.trial_runs(), (40.0, 46.0, 41.0, 41.0), strict=True):
        path = fake.run_dir(key).metrics
        metrics = read_json(path)
        metrics["metrics"] |= dict.fromkeys(("P@1", "P@5", "PSP@5"), value)
        write_json(path, metrics)
    return fake, grid


def test_the_mean_over_seeds_chooses(tmp_path):
    rows = table(several(tmp_path)[1]).rows
    assert [(row["trial"], row["chosen"]) for row in rows] == [("a", "chosen"), ("b", "")]
    for name in ("P@1", "mean"):
        cells = rows[0][f"{name} mean"], rows[0][f"{name} std"]
        assert cells == (43.0, pytest.approx(18**0.5))
    assert (rows[1]["mean mean"], rows[1]["mean std"]) == (41.0, 0.0)


def test_a_trial_that_misses_a_seed_is_open(tmp_path):
    fake, grid = several(tmp_path)
    shutil.rmtree(fake.run_dir(list(grid.trial_runs())[1]).root)
    now = table(grid)
    assert [(row["trial"], row["chosen"]) for row in now.rows] == [("a", "open"), ("b", "")]
    assert now.rows[0]["P@1 mean"] is None


def test_each_data_set_has_its_own_choice(tmp_path):
    fake = made_up(tmp_path, methods=("haste",), datasets=("one", "two"))
    rows = table(fake.write()).rows
    assert [row["dataset"] for row in rows if row["chosen"]] == ["one", "two"]


def test_a_search_says_by_which_rule_its_trials_came_about(tmp_path):
    only = {"dense": ["a"], "elmo-bf16": ["a"], "haste": ["b"]}
    searched = {**TUNING, "only": only, "rule": "a, or b where a is worse."}
    fake = made_up(tmp_path, tuning=searched)
    shown = table(fake.write())
    assert [(row["method"], row["trial"]) for row in shown.rows] == [
        ("Dense", "a"),
        ("ELMO (bf16)", "a"),
        ("HASTE", "b"),
    ]
    assert any("a, or b where a is worse." in note for note in shown.notes)


def test_rows_without_trials_are_named(tmp_path):
    fake = made_up(tmp_path, tuning={**TUNING, "untuned": ["elmo-bf16"]})
    grid = fake.write()
    shown = table(grid)
    assert "ELMO (bf16)" not in {row["method"] for row in shown.rows}
    said = [note for note in shown.notes if "No trials of their own" in note]
    assert [note.split(": ")[-1] for note in said] == ["ELMO (bf16)."]
    assert said[0] in table(grid, "main").notes


def not_trained(files: RunDir) -> None:
    shutil.rmtree(files.root)


def lost_its_metrics(files: RunDir) -> None:
    """What a run whose loss was no longer finite leaves."""
    files.metrics.unlink()
    files.resources.unlink()


def stopped(files: RunDir) -> None:
    write_json(files.resources, {**read_json(files.resources), "completed": False})


def had_other_settings(files: RunDir) -> None:
    files.config.write_text(files.config.read_text().replace("momentum: 0.9", "momentum: 0.8"))


@pytest.mark.parametrize(
    "spoil", [not_trained, lost_its_metrics, stopped, had_other_settings], ids=lambda f: f.__name__
)
def test_a_trial_that_is_not_finished_is_open(fake, tuning, tmp_path, spoil):
    shutil.copytree(fake.root / "results", tmp_path / "results")
    grid = replace(fake.grid, results_dir=str(tmp_path / "results"))
    key = next(key for key in grid.trial_runs() if key.method == "haste")
    spoil(run_dir(grid, key))
    now = table(grid)
    rows = {(row["method"], row["trial"]): row for row in now.rows}
    settings = {"dataset": "tiny", "method": "HASTE", "trial": "a"}
    settings["settings"] = "training.learning_rate 0.02"
    # no number at all
    filled = {name: cell for name, cell in rows["HASTE", "a"].items() if cell is not None}
    assert filled == {**settings, "chosen": "open"}
    # the other trial has its numbers, and is not chosen among one
    whole = {(row["method"], row["trial"]): row for row in tuning.rows}
    assert rows["HASTE", "b"] == whole["HASTE", "b"] | {"chosen": ""}
    others = [name for name in whole if name[0] != "HASTE"]
    assert [rows[name] for name in others] == [whole[name] for name in others]
    line = next(x for x in markdown("Trials", now).splitlines() if x.startswith("| HASTE | a |"))
    assert line.endswith("| – | – | – | – | – | – | open |")
    assert any(note.startswith("Open: ") for note in now.notes)


def test_where_no_trial_is_finished_the_table_says_what_trains_them(fake, tmp_path):
    grid = replace(fake.grid, results_dir=str(tmp_path))
    nothing = table(grid)
    assert [row["chosen"] for row in nothing.rows] == ["open"] * 6
    write_table(tmp_path / "tuning", "Trials", nothing)
    assert chosen(tmp_path / "tuning.csv") == {}


def test_predictions_of_trials_are_not_read(fake, tuning, tmp_path):
    shutil.copytree(fake.root / "results", tmp_path / "results")
    grid = replace(fake.grid, results_dir=str(tmp_path / "results"))
    for key in grid.trial_runs():
        run_dir(grid, key).predictions.unlink()
    assert table(grid).rows == tuning.rows


def test_a_damaged_trial_is_refused(tmp_path):
    fake = made_up(tmp_path, methods=("haste",))
    grid = fake.write()
    fake.run_dir(next(grid.trial_runs())).history.unlink()
    with pytest.raises(DataError, match=r"trial-a/seed2/history\.csv: no such file"):
        table(grid)


def marked(path: Path, mark: str) -> list[tuple[tuple[str, str], str]]:
    """((data set, method), trial) of the rows of a tuning.csv with a mark."""
    names = {row.title: name for name, row in methods().items()}
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["chosen"] == mark]
    return [((row["dataset"], names[row["method"]]), row["trial"]) for row in rows]


def chosen(path: Path) -> dict[tuple[str, str], str]:
    """(data set, method) -> trial, of a tuning.csv."""
    return dict(marked(path, "chosen"))


def differences(grid: GridConfig, trials: Mapping[tuple[str, str], str]) -> list[str]:
    """What the runs of a grid have otherwise than the trials chosen, of all that trials vary."""
    found = []
    for (dataset, name), trial in trials.items():
        best = grid.resolve(RunKey(dataset, name, f"trial-{trial}", grid.tuning.seeds[0]))
        run = grid.resolve(RunKey(dataset, name, "default", grid.tuning.seeds[0]))
        varied = {k for v in grid.tuning.variants(name) for k in grid.tuning.changed(name, v)}
        for section, key in sorted(varied):
            ours, theirs = (getattr(getattr(each, section), key) for each in (run, best))
            numbers = isinstance(ours, float) and isinstance(theirs, float)
            if not (math.isclose(ours, theirs, rel_tol=1e-9) if numbers else ours == theirs):
                found.append(f"{dataset}, {name}: {section}.{key} {ours}, chosen {theirs}")
    return found


def committed() -> list[tuple[Path, GridConfig]]:
    paths = [ROOT / "config.yaml", *sorted((ROOT / "workflow/configs").glob("*.yaml"))]
    grids = [(path, GridConfig.from_dict(yaml.safe_load(path.read_text()))) for path in paths]
    return [(path, grid) for path, grid in grids if grid.tuning]


def test_overrides_carry_what_was_chosen():
    for path, grid in committed():
        table_file = ROOT / f"{grid.layout.table('tuning')}.csv"
        trials = chosen(table_file)
        undecided = {name for name, _ in marked(table_file, "open")}
        assert not undecided & set(trials)
        trained = {(k.dataset, k.method) for k in grid.trial_runs()}
        assert set(trials) | undecided == trained, f"{table_file} is of other methods than {path}"
        assert differences(grid, trials) == [], (
            f"overrides of {path} are not what {table_file} chose"
        )


def test_committed_trials_make_the_committed_table(tmp_path, monkeypatch):
    """Without its data, so that what they were trained from is not compared."""
    monkeypatch.chdir(tmp_path)
    found = [(grid, ROOT / grid.layout.results / "trials.zip") for _, grid in committed()]
    assert all(archive.is_file() for _, archive in found)
    for grid, archive in found:
        import_results(archive, grid, without_data=True)
        paths = write_table(tmp_path / "tuning", "Trials on the validation split", table(grid))
        for path in paths[:3]:
            there = ROOT / f"{grid.layout.table('tuning')}{path.suffix}"
            assert path.read_text() == there.read_text(), f"{there} is not of {archive}"


def test_the_trials_of_each_method_on_wordnet_are_those_that_the_rule_names():
    means, steps = {}, {}
    with (ROOT / "results/wordnet-tuned/tables/tuning.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            dropout, _, step = row["trial"].removeprefix("dropout-").partition("-rate-")
            tenths, method = round(10 * float(dropout)), row["method"]
            if step:
                steps.setdefault(method, set()).add((tenths, float(step)))
            else:
                means.setdefault(method, {})[tenths] = float(row["mean"])
    for method, found in means.items():
        third = 8 if found[6] > found[4] else 2
        best, second = sorted((4, 6, third), key=found.get, reverse=True)[:2]
        assert set(found) == {4, 6, third, best + (1 if second > best else -1)}
        best = max(found, key=found.get)
        assert steps[method] == {(best, 0.01), (best, 0.04)}


def test_a_difference_from_what_was_chosen_is_found(tmp_path, tuning):
    write_table(tmp_path / "tuning", "Trials", tuning)
    trials = chosen(tmp_path / "tuning.csv")
    assert trials == {("tiny", "dense"): "b", ("tiny", "elmo-bf16"): "a", ("tiny", "haste"): "a"}
    right = {
        "dense": {
            "layer": {"dropout": 0.5},
            "training": {"learning_rate": 0.05},
            "encoder": {"learning_rate": 0.0002},
        },
        "elmo-bf16": {"training": {"learning_rate": 0.2}},
        "haste": {"training": {"learning_rate": 0.02}},
    }
    assert differences(made_up(tmp_path, overrides=right).grid, trials) == []
    # trial b's encoder, which the chosen trial a leaves as the grid has it
    wrong = right | {"haste": right["haste"] | {"encoder": {"learning_rate": 0.0002}}}
    (difference,) = differences(made_up(tmp_path, overrides=wrong).grid, trials)
    assert difference.startswith("tiny, haste: encoder.learning_rate 0.0002, chosen ")
    assert len(differences(made_up(tmp_path).grid, trials)) == 5


def test_haste_plus_is_the_combination_that_was_chosen():
    read = yaml.safe_load((ROOT / "workflow/configs/plus.yaml").read_text())
    grid = GridConfig.from_dict({**read, "methods": ["haste", "haste-plus"]})
    (trial,) = chosen(ROOT / "results/plus/tables/tuning.csv").values()
    best = grid.resolve(RunKey("wordnet-mini", "haste", f"trial-{trial}", 0))
    preset = grid.resolve(RunKey("wordnet-mini", "haste-plus", "default", 0))
    assert preset.layer == best.layer
    assert preset.rewire == best.rewire
    assert preset.training.tune_tail_bias == best.training.tune_tail_bias
