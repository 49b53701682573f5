"""The search of settings: which trials there are, and that it ends, goes on and repeats."""

import pytest

from haste.checksums import write_description
from haste.data.arrays import NamedLabels, write_arrays
from haste.errors import TrainingError
from haste.files import write_yaml
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
from haste.metrics.names import VALIDATED
from haste.paths import GridLayout
from haste.prepare import own_encoder
from haste.runs import IDENTITY, claim, identity, input_digest, is_done
from haste.search import LADDERS, STEPS, Search

DOCUMENTS, LABELS, BATCH = 300, 80, 32
TEXTS = [f"w{i % LABELS} x{i % 7}" for i in range(DOCUMENTS)]
PACE = 0.01
"""seconds a step of a trial is said to take"""
FAKED = pytest.mark.usefixtures("trained")


@pytest.fixture
def settings(tmp_path):
    """A grid of one run on a few texts."""
    layout = GridLayout(tmp_path / "data", tmp_path, "tuned")
    labels = NamedLabels.of([[i % LABELS] for i in range(DOCUMENTS)])
    encoder = own_encoder({}, TEXTS, tmp_path / "words", dense=False, size=128, seed=0)
    write_arrays(layout.corpus("few").root, TEXTS, labels, encoder["max_len"], 0.1)
    return {
        "name": layout.grid,
        "datasets": ["few"],
        "methods": ["haste-plus"],
        "seeds": [0],
        "data_dir": str(layout.data_dir),
        "results_dir": str(layout.results_dir),
        "encoder": encoder,
        "training": {"batch_size": BATCH},
    }


@pytest.fixture
def trained(monkeypatch):
    """Configurations of the trials that were trained: those of dropout 0.2 and more steps are the best."""
    seen = []

    def train(config, run, *, force):
        if is_done(run, config) and not force:
            return
        claim(run, config, force=force)
        seen.append(config)
        if config.layer.dropout == 0.0:
            raise TrainingError("the loss is no longer finite")
        worth = 50 - 100 * abs(config.layer.dropout - 0.2) + config.training.min_steps / 1e5
        write_yaml(run.config, config.as_dict())
        steps = config.training.min_steps
        resources = {"steps": steps, "seconds": {"train": PACE * steps}, "completed": True}
        write_description(
            run.resources, {**resources, IDENTITY: identity(config, input_digest(config.inputs))}
        )
        write_description(run.metrics, {"metrics": dict.fromkeys(VALIDATED, worth)})

    monkeypatch.setattr("haste.search.train_and_evaluate", train)
    return seen


def values(trials):
    return [dict(trial.changed) for trial in trials]


def test_the_first_trial_is_the_run_that_the_settings_describe(settings, trained):
    search = Search(settings)
    search.run(1, 1)
    plain = GridConfig.from_dict(settings).resolve(RunKey("few", "haste-plus", DEFAULT_VARIANT, 0))
    (config,) = trained
    assert config.training.epochs_on(270) == plain.training.epochs_on(270)
    assert config.training.stable_step
    assert config.training.evaluate == "validation"
    assert config.layer == plain.layer
    assert config.encoder == plain.encoder


@FAKED
def test_it_finds_the_better_settings_and_the_grid_that_it_returns_has_them(settings):
    search = Search(settings)
    best = search.run(60, 40)
    assert best.changed["layer.dropout"] == 0.2
    assert best.score == max(trial.score for trial in search.trials)
    grid = GridConfig.from_dict(search.chosen())
    run = grid.resolve(RunKey("few", "haste-plus", DEFAULT_VARIANT, 0))
    trial = grid.resolve(RunKey("few", "haste-plus", f"trial-{best.name}", 0))
    assert (run.layer, run.encoder, run.rewire) == (trial.layer, trial.encoder, trial.rewire)
    assert run.training.min_steps == trial.training.min_steps == best.changed[STEPS]
    assert run.training.evaluate == "test"
    assert len(list(grid.trial_runs())) == len(search.trials) == 40


@FAKED
def test_a_trial_goes_one_step_from_the_best_so_far_in_at_most_two_settings(settings):
    search = Search(settings)
    search.run(60, 20)
    for number, trial in enumerate(search.trials[1:], 1):
        best = max(search.trials[:number], key=lambda other: other.score)
        steps = [abs(trial.place[key] - best.place[key]) for key in best.place]
        assert 1 <= sum(steps) <= 2
        assert max(steps) == 1
    assert len({tuple(trial.place.items()) for trial in search.trials}) == 20


@FAKED
def test_a_search_repeats_and_another_seed_is_another_one(settings, tmp_path):
    first, again = Search(settings), Search({**settings, "results_dir": str(tmp_path / "again")})
    first.run(60, 8)
    again.run(60, 8)
    assert values(first.trials) == values(again.trials)
    other = Search({**settings, "seeds": [1]})
    other.run(60, 8)
    assert values(other.trials) != values(first.trials)


def test_finished_trials_are_read_and_the_search_goes_on(settings, trained):
    whole = Search({**settings, "name": "whole"})
    whole.run(60, 6)
    Search(settings).run(60, 4)
    trained.clear()
    rest = Search(settings)
    rest.run(60, 6)
    failed = [trial for trial in whole.trials[:4] if not trial.metrics]
    assert len(trained) == 2 + len(failed)
    assert values(rest.trials) == values(whole.trials)


@FAKED
def test_no_trial_begins_that_would_not_end_in_time(settings):
    search = Search(settings)
    search.run(0, 10)
    assert len(search.trials) == 1
    # what is there takes no time
    search = Search(settings)
    search.run(0, 10)
    assert len(search.trials) == 1


def test_trials_of_other_settings_in_the_folder_are_replaced(settings, trained):
    Search(settings).run(60, 2)
    trained.clear()
    other = Search({**settings, "rewire": {"fraction": 0.1}})
    other.run(60, 2)
    assert [config.rewire.fraction for config in trained] == [0.1, 0.1]


@FAKED
def test_a_loss_that_is_not_finite_ends_one_trial(settings):
    search = Search({**settings, "overrides": {"haste-plus": {"layer": {"dropout": 0.0}}}})
    search.run(60, 3)
    assert [trial.metrics for trial in search.trials] == [{}, {}, {}]
    assert search.best is search.trials[0]


def test_what_the_settings_say_is_not_searched(settings, trained):
    given = {"training": {"epochs": 3}, "layer": {"fan_in": 16}, "encoder": {"learning_rate": 0.01}}
    search = Search({**settings, "overrides": {"haste-plus": given}})
    search.run(60, 12)
    assert {config.training.epochs for config in trained} == {3}
    assert {config.layer.fan_in for config in trained} == {16}
    assert {config.encoder.learning_rate for config in trained} == {0.01}
    searched = {key for trial in search.trials for key in trial.changed}
    assert searched <= {"training.learning_rate", *LADDERS} - {"layer.fan_in"}


def test_no_trial_reads_more_features_than_there_are(settings, trained):
    """Head and tail of haste-plus read private halves of the 128 features."""
    Search(settings).run(60, 30)
    assert {config.layer.fan_in for config in trained} == {32, 64}


@FAKED
def test_a_dense_layer_has_no_head_or_fan_in_to_search(settings):
    search = Search({**settings, "methods": ["dense"]})
    assert set(search.run(60, 1).place) == {
        STEPS,
        "training.learning_rate",
        "encoder.learning_rate",
        "layer.dropout",
        "encoder.token_dropout",
    }
