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
from haste.training.loop import Trainer
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
        {"optimizer_in_backward": True, "dtype": "bfloat16"},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "attention": "packed"},
    ],
    ids=["plain", "fused", "gradient_checkpointing", "packed"],
)
def test_a_stopped_transformer_goes_on_to_the_same_weights(tiny, bert, stop, encoder):
    whole = trained(tiny, bert, "whole", **encoder)
    cut = trained(tiny, bert, "cut", stop=stop, stop_after=13, **encoder)
    assert same(whole, cut)
    assert read_json(whole.resources)["gradient_checkpointing"] is bool(
        encoder.get("gradient_checkpointing")
    )


@pytest.mark.parametrize("option", ["optimizer_in_backward", "gradient_checkpointing"])
def test_what_saves_memory_changes_no_number(tiny, bert, option):
    assert same(trained(tiny, bert, "plain"), trained(tiny, bert, option, **{option: True}))


def test_packed_what_saves_memory_changes_no_number(tiny, bert):
    plain = trained(tiny, bert, "plain", attention="packed")
    assert same(
        plain, trained(tiny, bert, "again", attention="packed", gradient_checkpointing=True)
    )
    assert not same(plain, trained(tiny, bert, "padded"))


def test_a_fused_optimizer_keeps_no_gradients_and_takes_the_schedules_step_size(tiny, monkeypatch):
    seen = []
    step = Trainer.step

    def look(self, batch):
        loss = step(self, batch)
        weights = [*self.model.encoder.parameters(), *self.model.projection.parameters()]
        seen.append((self.optimizers[0].param_groups[0]["lr"], [w.grad for w in weights]))
        return loss

    monkeypatch.setattr(Trainer, "step", look)
    config = tiny.config(
        encoder={"learning_rate": 1e-3, "max_len": 12, "optimizer_in_backward": True}
    )
    train_and_evaluate(config, tiny.run_dir("run", config))
    rates = [rate for rate, _ in seen]
    assert rates[0] == pytest.approx(5e-4)  # the first of two steps of warm-up
    assert rates[-1] < 1e-5
    assert all(grad is None for _, grads in seen for grad in grads)


def test_batches_by_length_train(tiny):
    config = tiny.config(training={"group_by_length": True})
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    assert read_json(run.resources)["steps"] == 20


@pytest.mark.parametrize("fused", [False, True])
def test_a_model_that_is_given_up_is_freed(tiny, fused):
    config = tiny.config(encoder={"max_len": 12, "optimizer_in_backward": fused})
    model = build_model(config, RunInputs.load(config), torch.device("cpu"))
    step = TrainStep(config, model, 10)
    features = model.encoder.inner(torch.ones(1, model.encoder.feature_size))
    features.sum().backward()
    weight = weakref.ref(model.encoder.inner.weight)
    del model, step, features
    gc.collect()
    assert weight() is None
