import subprocess
import sys
from pathlib import Path

import pytest

from haste.errors import ConfigError
from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.presets import ablations, methods
from haste.report import registry
from haste.report.registry import entries, entry, order_path, preset
from haste.runs import run_files

TUNING = {"epochs": 2, "trials": {"a": {}, "b": {"training": {"momentum": 0.0}}}}


def grid(**changes):
    settings = {
        "name": "g",
        "datasets": ["one", "two"],
        "methods": list(methods()),
        "ablations": ["grouping", "fan_in"],
        "seeds": [3, 4],
        "ablation_seeds": [3],
    }
    return GridConfig.from_dict(settings | changes)


def table_names(grid):
    return list(entries("table", grid))


def figure_names(grid):
    return list(entries("figure", grid))


def table_inputs(grid, name):
    return entry("table", name, grid).inputs_of(grid)


def figure_inputs(grid, name):
    return entry("figure", name, grid).inputs_of(grid)


def test_a_grid_has_tables_and_figures_of_its_ablations():
    assert set(table_names(grid())) >= {
        "main",
        "claims",
        "datasets",
        "ablation_grouping",
        "ablation_fan_in",
        "grouping_cohesion",
        "confusions",
        "runs",
        "kernel_times",
        "scale",
    }
    assert "ablations" in figure_names(grid())
    assert "ablations" not in figure_names(grid(ablations=[]))


def test_label_orders_are_shown_of_the_first_seed_of_ablations():
    config = grid(seeds=[1, 2], ablation_seeds=[4, 3])
    assert preset(config, "two") == RunKey("two", "haste", "default", 4)


def test_trials_have_a_table_where_the_grid_has_trials():
    assert "tuning" not in table_names(grid())
    config = grid(tuning=TUNING)
    assert set(table_names(config)) == {*table_names(grid()), "tuning"}
    inputs = table_inputs(config, "tuning")
    assert inputs.runs == tuple(config.trial_runs())
    assert inputs.partial, "of what is there"
    with pytest.raises(ConfigError, match="there is no table 'tuning' in this grid"):
        table_inputs(grid(), "tuning")


def test_only_the_table_of_trials_reads_trials():
    config = grid(tuning=TUNING)
    trials = set(config.trial_runs())
    for name in table_names(config):
        inputs = table_inputs(config, name)
        if name != "tuning":
            assert not trials & set(inputs.runs)
            assert not inputs.partial
    for name in figure_names(config):
        assert not trials & set(figure_inputs(config, name).runs)


@pytest.mark.parametrize(
    ("name", "variant", "more"),
    [
        ("haste", "default", {"history.csv", "predictions.npz"}),
        ("haste", "trial-a", {"history.csv"}),
        ("omikuji", "default", {"predictions.npz"}),
    ],
)
def test_files_of_a_run(name, variant, more):
    files = run_files(RunDir(Path("run")), RunKey("one", name, variant, 3))
    assert {str(path) for path in files} == {
        f"run/{file}" for file in {"config.yaml", "metrics.json", "resources.json"} | more
    }


def test_main_reads_every_run_that_is_made_once():
    runs = table_inputs(grid(), "main").runs
    assert len(set(runs)) == len(runs)
    assert RunKey("two", "haste", "default", 4) in runs
    assert RunKey("one", "omikuji", "default", 3) in runs
    made = {key.method for key in runs}
    assert not made & {"renee"}


def test_an_ablation_reads_its_variants_the_preset_and_the_truth():
    inputs = table_inputs(grid(), "ablation_fan_in")
    assert {(r.variant, r.seed) for r in inputs.runs if r.dataset == "one"} == {
        ("default", 3),
        ("fan_in-16", 3),
        ("fan_in-64", 3),
    }
    assert inputs.corpora == ("one", "two")


def test_claims_read_only_the_variants_that_they_are_about():
    def variants(**changes):
        config = grid(ablations=["grouping", "head_tail", "group_size"], **changes)
        return {key.variant for key in table_inputs(config, "claims").runs}

    expected = {"default", "grouping-frequency-shuffled", "grouping-random"}
    expected |= {"group_size-32", "group_size-64"}
    # group-fan-in is compared instead of head_tail-off
    assert variants() == expected
    fewer = [name for name in methods() if name != "group-fan-in"]
    assert variants(methods=fewer) == {*expected, "head_tail-off"}


def test_the_order_of_the_preset_is_the_one_its_runs_train_with():
    config = grid()
    run = config.resolve(RunKey("one", "haste", "default", 3))
    assert str(order_path(config, "one", None)) == run.inputs.order


def test_training_curves_leave_out_linear_methods():
    made = {key.method for key in figure_inputs(grid(), "training_curves").runs}
    assert "haste" in made
    assert not made & {"omikuji", "popularity"}


def test_benchmarks_are_what_lies_there(tmp_path):
    config = grid(results_dir=str(tmp_path))
    assert table_inputs(config, "kernel_times").benchmarks == ()
    path = tmp_path / "benchmarks/h200/kernels.csv"
    path.parent.mkdir(parents=True)
    path.touch()
    assert table_inputs(config, "kernel_times").benchmarks == (path,)
    assert table_inputs(config, "claims").benchmarks == (path,)
    assert table_inputs(config, "scale").benchmarks == ()


@pytest.mark.parametrize(
    ("inputs", "name", "nearest"),
    [(table_inputs, "clams", "claims"), (figure_inputs, "training_curve", "training_curves")],
)
def test_an_unknown_name_is_refused_with_the_nearest(inputs, name, nearest):
    with pytest.raises(ConfigError, match=rf"no (table|figure) '{name}' in this grid.*{nearest}"):
        inputs(grid(), name)


def test_every_table_and_figure_has_a_caption_and_a_target_of_its_own():
    full = grid(ablations=list(ablations()), tuning=TUNING)
    all_entries = [*entries("table", full).values(), *entries("figure", full).values()]
    assert all(len(each.caption) > 100 for each in all_entries)
    assert all("{" not in each.caption for each in all_entries)
    assert len({each.target for each in all_entries}) == len(all_entries)


def test_adding_a_table_is_one_registered_function(monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @registry.table("new", "A new one", inputs=lambda _: registry.Inputs(corpora=("one",)))
    def new_table(sources):
        """What it shows."""
        return sources

    added = entry("table", "new", grid())
    assert (added.target, added.caption) == ("table_new", "What it shows.")
    assert added.inputs_of(grid()).corpora == ("one",)


def test_what_is_registered_is_known_without_heavy_imports():
    code = (
        "import sys; from haste.report import registry; from haste.grid import read_grid; "
        "from pathlib import Path; registry.entries('table', read_grid([Path('config.yaml')])); "
        "print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"


def test_a_grid_may_have_all_of_the_finished_runs_alone():
    config = grid(allow_partial=True)
    assert all(table_inputs(config, name).partial for name in table_names(config))
    assert all(figure_inputs(config, name).partial for name in figure_names(config))
    assert not any(figure_inputs(grid(), name).partial for name in figure_names(grid()))
