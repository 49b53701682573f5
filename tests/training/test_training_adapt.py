"""What settings become on the data at hand, and when training stops early."""

import csv

import numpy as np
import pytest

from haste.encoders.bag import FEATURE_SCALE
from haste.grid import UNTUNED, GridConfig
from haste.inputs import RunInputs
from haste.runs import is_done
from haste.training.adapt import adapted, largest_step
from haste.training.run import train_and_evaluate

GRID = {"name": "g", "datasets": ["d"], "methods": ["haste"], "seeds": [0]}


def rows(run):
    with run.history.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("training", "min_steps", "stable"),
    [
        ({}, UNTUNED["training", "epochs"]["min_steps"], True),
        ({"epochs": 3}, 0, True),
        ({"learning_rate": 0.1}, UNTUNED["training", "epochs"]["min_steps"], False),
        ({"epochs": 3, "min_steps": 9, "learning_rate": 0.1, "stable_step": True}, 9, True),
    ],
)
def test_only_what_nobody_has_set_adapts(training, min_steps, stable):
    grid = GridConfig.from_dict({**GRID, "training": training})
    found = grid.resolve(grid.runs()[0]).training
    assert (found.min_steps, found.stable_step) == (min_steps, stable)


def test_a_frequent_label_and_a_large_batch_lower_the_step(tiny):
    small, large = (tiny.config(training={"batch_size": size}) for size in (16, 64))
    rare, frequent = np.array([1, 2]), np.array([1, 50])
    step = largest_step(small, frequent, 100, 32)
    assert step < largest_step(small, rare, 100, 32)
    assert largest_step(large, frequent, 100, 32) == pytest.approx(step / 4)
    # another label may be on half of the documents
    assert largest_step(small, np.array([99]), 100, 32) == largest_step(
        small, np.array([50]), 100, 32
    )


@pytest.mark.parametrize(
    ("layer", "reads"),
    [
        ({"pattern": "dense"}, 32),
        ({"fan_in": 16}, 16),
        # the most frequent label is in the head
        ({"fan_in": 16, "head_ratio": 0.1}, 32),
        ({"fan_in": 16, "head_ratio": 0.1, "features": "private"}, 16),
        ({"fan_in": 16, "head_ratio": 0.1, "features": "projections"}, 32),
    ],
)
def test_the_largest_step_by_hand(tiny, layer, reads):
    config = tiny.config(layer=layer, training={"batch_size": 16, "momentum": 0.5})
    # a label on a quarter of the documents; features of its squared length, and the bias's
    curvature = 16 * 0.25 * 0.75 * (1 + reads * FEATURE_SCALE**2)
    assert largest_step(config, np.array([25, 3]), 100, 32) == pytest.approx(1.5 / curvature)


@pytest.mark.parametrize(
    "training", [{"learning_rate": 100}, {"learning_rate": 1e-9, "stable_step": True}]
)
def test_a_step_is_kept_that_is_small_or_is_to_be_kept(tiny, training):
    config = tiny.config(training=training)
    assert adapted(config, RunInputs.load(config)).training == config.training


@pytest.mark.parametrize(("optimizer", "lowered"), [("sgd", True), ("adamw", False)])
def test_the_step_of_adamw_is_not_one_that_diverges(tiny, optimizer, lowered):
    training = {"learning_rate": 100, "stable_step": True, "optimizer": optimizer}
    config = tiny.config(training=training)
    rate = adapted(config, RunInputs.load(config)).training.learning_rate
    assert (rate < 100) == lowered


def test_few_documents_are_repeated_until_there_are_enough_steps(tiny):
    config = tiny.config(training={"epochs": 1, "min_steps": 25, "stable_step": True})
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    # 150 documents are 10 batches of 16
    assert [int(row["step"]) for row in rows(run)] == [10, 20, 30]
    assert is_done(run, config), "the configuration is the one that was asked for"


def test_training_stops_when_validation_gets_no_better_and_keeps_the_best(tiny):
    config = tiny.config(
        training={"epochs": 40, "patience": 2, "evaluate": "validation", "learning_rate": 0.1}
    )
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    means = [sum(float(row[name]) for name in ("P@1", "P@5", "PSP@5")) for row in rows(run)]
    assert len(means) < 40
    assert means.index(max(means)) == len(means) - 3
    from haste.files import read_json

    kept = read_json(run.metrics)["metrics"]
    assert sum(kept[name] for name in ("P@1", "P@5", "PSP@5")) == pytest.approx(
        max(means), abs=1e-3
    )
    assert not run.checkpoint.exists()
