"""Options of a step that change what it costs, not what it computes; and runs with a transformer."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from haste.files import read_json
from haste.inputs import RunInputs
from haste.model import build_model
from haste.training.run import train_and_evaluate
from haste.training.step import TrainStep


def trained(tiny, bert, name, *, stop=None, stop_after=None, **encoder):
    settings = {"kind": "transformer", "learning_rate": 1e-3, "max_len": 12, **encoder}
    config = tiny.config(encoder=settings, training={"checkpoint_minutes": 0.0})
    config = replace(config, inputs=replace(config.inputs, model=str(bert)))
    run = tiny.run_dir(name, config)
    if stop_after is not None:
        stop(config, run, stop_after)
    train_and_evaluate(config, run)
    return run


def same(a, b):
    want, got = load_file(a.model), load_file(b.model)
    return all(torch.equal(want[k], got[k]) for k in want)


@pytest.mark.parametrize(
    "encoder",
    [
        {},
        {"dtype": "bfloat16"},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "attention": "packed"},
    ],
    ids=["plain", "bfloat16", "gradient_checkpointing", "packed"],
)
def test_a_stopped_transformer_goes_on_to_the_same_weights(tiny, bert, stop, encoder):
    whole = trained(tiny, bert, "whole", **encoder)
    cut = trained(tiny, bert, "cut", stop=stop, stop_after=13, **encoder)
    assert same(whole, cut)
    assert read_json(whole.resources)["gradient_checkpointing"] is bool(
        encoder.get("gradient_checkpointing")
    )


def test_what_saves_memory_changes_no_number(tiny, bert):
    assert same(
        trained(tiny, bert, "plain"), trained(tiny, bert, "again", gradient_checkpointing=True)
    )


def test_packed_what_saves_memory_changes_no_number(tiny, bert):
    plain = trained(tiny, bert, "plain", attention="packed")
    assert same(
        plain, trained(tiny, bert, "again", attention="packed", gradient_checkpointing=True)
    )
    assert not same(plain, trained(tiny, bert, "padded"))


def test_batches_by_length_train(tiny):
    config = tiny.config(training={"group_by_length": True})
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    assert read_json(run.resources)["steps"] == 20


def test_a_model_that_is_given_up_is_freed(tiny):
    config = tiny.config(encoder={"max_len": 12})
    model = build_model(config, RunInputs.load(config), torch.device("cpu"))
    step = TrainStep(config, model, 10)
    features = model.encoder.inner(torch.ones(1, model.encoder.feature_size))
    features.sum().backward()
    weight = weakref.ref(model.encoder.inner.weight)
    del model, step, features
    gc.collect()
    assert weight() is None
