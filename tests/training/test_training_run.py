"""Whole runs on the made-up data set: files, learning, interruption."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from haste.cli import app
from haste.errors import ConfigError, DataError, TrainingError
from haste.files import read_json, read_yaml, write_yaml
from haste.metrics.runs import evaluate_run, read_predictions
from haste.metrics.truth import load_truth
from haste.training import checkpoint
from haste.training import run as training_run
from haste.training.loop import COLUMNS, Trainer
from haste.training.run import choose_device, train_and_evaluate

LAYERS = {
    "dense": {"pattern": "dense"},
    "elmo": {"pattern": "dense", "chunks": 3, "dtype": "bfloat16"},
    "elmo-fp8": {"pattern": "dense", "chunks": 3, "dtype": "float8_e4m3"},
    "group-fp8": {"fan_in": 16, "dtype": "float8_e4m3"},
    "bottleneck": {"pattern": "bottleneck", "fan_in": 16},
    "unstructured": {"pattern": "unstructured", "fan_in": 16},
    "fixed": {"pattern": "fixed_fan_in", "fan_in": 16},
    "block": {"pattern": "block_sparse", "fan_in": 16},
    "group": {"fan_in": 16},
}


def rows(run):
    with run.history.open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("name", LAYERS)
def test_every_pattern_trains_and_learns(tiny, name):
    rewire = {"interval": 5, "until": 0.6}
    config = tiny.config(
        layer=LAYERS[name],
        rewire=rewire,
        training={"epochs": 15, "learning_rate": 0.1},
        encoder={"learning_rate": 3e-3, "max_len": 12},
    )
    run = tiny.run_dir(name, config)
    train_and_evaluate(config, run)
    history = rows(run)
    assert tuple(history[0]) == COLUMNS
    assert [int(r["epoch"]) for r in history] == list(range(1, 16))
    assert float(history[-1]["loss"]) < 0.5 * float(history[0]["loss"])
    sparse = name in ("unstructured", "fixed", "block", "group", "group-fp8")
    assert (sum(int(r["rewired"]) for r in history) > 0) == sparse
    assert all(int(r["rewired"]) == 0 for r in history[10:])
    metrics = read_json(run.metrics)["metrics"]
    assert metrics["P@1"] > 25  # by chance 8%
    assert evaluate_run(run)["metrics"] == metrics
    assert not run.checkpoint.exists()


@pytest.mark.parametrize(
    "sections",
    [
        {"head": 8},
        {"head": 8, "layer": {"fan_in": 16, "features": "private", "head_ratio": 0.2}},
        {
            "head": 8,
            "layer": {"fan_in": 16, "features": "projections", "head_ratio": 0.2, "dropout": 0.2},
        },
        {"layer": {"fan_in": 16, "bias_init": "log_prior"}},
        {"layer": {"fan_in": 16}, "auxiliary": {"scale": 0.5, "cluster_size": 16}},
        {"layer": {"fan_in": 16, "sampling": "with_replacement", "loss_dtype": "bfloat16"}},
    ],
    ids=["head-tail", "private", "projections", "log-prior", "auxiliary", "released"],
)
def test_every_option_trains(tiny, sections):
    config = tiny.config(**sections)
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    history = rows(run)
    assert float(history[-1]["loss"]) < float(history[0]["loss"])


def test_files_of_a_run(tiny):
    config = tiny.config()
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    ids, scores = read_predictions(run)
    assert ids.shape == (30, 100)
    assert (ids[:, 40:] == -1).all()  # 40 labels can be predicted
    assert (np.sort(ids[:, :40], axis=1) == np.arange(40)).all()
    assert (np.diff(scores[:, :40], axis=1) <= 0).all()
    resources = read_json(run.resources)
    assert resources["completed"] is True
    assert resources["steps"] == 2 * 10
    # L F weights and L biases with their momenta, K F indices
    assert resources["layer_bytes"] == 2 * 4 * (40 * 16 + 40) + 4 * 3 * 16
    assert set(resources["seconds"]) == {"setup", "train", "evaluate", "epoch"}
    assert set(resources["peak_bytes"]) == {"setup", "train", "evaluate"}
    weights = load_file(run.model)
    assert weights["layer.weight"].shape == (40, 16)
    assert not any(name.endswith("momentum") for name in weights)


@pytest.mark.parametrize(("split", "other"), [("validation", "test"), ("test", "validation")])
def test_predictions_and_metrics_are_of_the_split_that_the_run_evaluates(
    tiny, monkeypatch, split, other
):
    config = tiny.config(training={"evaluate": split})
    run = tiny.run_dir("run", config)
    read = []
    monkeypatch.setattr(
        training_run, "load_truth", lambda root, name: read.append(name) or load_truth(root, name)
    )
    train_and_evaluate(config, run)
    # the loop looks at validation in every run; test is read where it is asked for
    assert set(read) == {"validation", split}
    truth = {name: load_truth(tiny.corpus, name) for name in (split, other)}
    ids, scores = read_predictions(run)
    assert len(ids) == truth[split].positives.shape[0] != truth[other].positives.shape[0]
    metrics = read_json(run.metrics)
    assert metrics["metrics"] == truth[split].evaluate(ids, scores)["metrics"]
    if split == "validation":
        assert metrics["metrics"]["P@1"] == pytest.approx(float(rows(run)[-1]["P@1"]))
    run.metrics.unlink()
    assert evaluate_run(run) == metrics == read_json(run.metrics)


def test_a_run_of_a_split_that_is_none_is_not_evaluated_again(tiny):
    config = tiny.config()
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    written = config.as_dict()
    written["training"]["evaluate"] = "train"
    write_yaml(run.config, written)
    with pytest.raises(DataError, match=r"config.yaml: training.evaluate is 'train'; expected"):
        evaluate_run(run)
    # runs from before there was the setting are of the test split
    del written["training"]["evaluate"]
    write_yaml(run.config, written)
    assert evaluate_run(run)["documents"] == 30


def test_the_same_seed_gives_the_same_run_and_another_does_not(tiny):
    results = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = tiny.config(head=8, seed=seed, layer={"fan_in": 16, "dropout": 0.3})
        run = tiny.run_dir(name, config)
        train_and_evaluate(config, run)
        results.append(load_file(run.model))
    assert all(torch.equal(results[0][k], results[1][k]) for k in results[0])
    assert not torch.equal(
        results[0]["layer.tail.layer.weight"], results[2]["layer.tail.layer.weight"]
    )


SECTIONS = {
    "layer": {"fan_in": 16, "dropout": 0.2, "dtype": "bfloat16"},
    "rewire": {"interval": 3, "until": 1.0},
    "training": {"epochs": 3, "checkpoint_minutes": 0.0},
}


@pytest.mark.parametrize("stop_after", [1, 7, 10, 19, 30])
def test_a_stopped_run_goes_on_to_the_same_weights(tiny, stop, stop_after):
    config = tiny.config(head=8, **SECTIONS)
    whole = tiny.run_dir("whole", config)
    train_and_evaluate(config, whole)

    cut = tiny.run_dir("cut", config)
    stop(config, cut, stop_after)
    assert not cut.metrics.exists()
    # as `haste drive` leaves a run that it starts again
    cut.history.unlink(missing_ok=True)
    train_and_evaluate(config, cut)
    want, got = load_file(whole.model), load_file(cut.model)
    assert all(torch.equal(want[k], got[k]) for k in want)
    assert read_json(cut.metrics) == read_json(whole.metrics)
    timed = {"seconds"}
    for a, b in zip(rows(whole), rows(cut), strict=True):
        assert {k: v for k, v in a.items() if k not in timed} == {
            k: v for k, v in b.items() if k not in timed
        }


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_goes_on_to_the_same_weights(tiny, how):
    config = tiny.config(
        head=8, **{**SECTIONS, "training": {"epochs": 8, "checkpoint_minutes": 0.0}}
    )
    whole, cut = tiny.run_dir("whole", config), tiny.run_dir("cut", config)
    train_and_evaluate(config, whole)
    command = [sys.executable, "-m", "haste", "train", str(cut.config)]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while not cut.checkpoint.joinpath(checkpoint.FILE).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(how)
        errors = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
    assert process.returncode == (143 if how == signal.SIGTERM else -signal.SIGKILL), errors
    assert not cut.metrics.exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "going on from step" in done.stderr
    want, got = load_file(whole.model), load_file(cut.model)
    assert all(torch.equal(want[k], got[k]) for k in want)


def test_a_checkpoint_of_another_configuration_is_left_out_of_account(tiny, caplog):
    first = tiny.config()
    run = tiny.run_dir("run", first)
    trainer_files = run.checkpoint / checkpoint.FILE
    run.checkpoint.mkdir()
    trainer_files.write_bytes(b"not a checkpoint")
    train_and_evaluate(first, run)
    assert "cannot be read" in caplog.text
    assert "starting anew" in caplog.text


def test_fingerprint_depends_on_what_decides_numbers(tiny):
    config = tiny.config()
    same = tiny.config(training={"checkpoint_minutes": 9.0, "threads": 2})
    assert checkpoint.fingerprint(config) == checkpoint.fingerprint(same)
    for other in ({"learning_rate": 0.06}, {"evaluate": "validation"}):
        assert checkpoint.fingerprint(config) != checkpoint.fingerprint(tiny.config(training=other))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tiny, monkeypatch
):
    config = tiny.config(training={"epochs": 3, "checkpoint_minutes": 0.0})
    run = tiny.run_dir("run", config)
    step = Trainer.step

    def poisoned(self, rows):
        loss = step(self, rows)
        return loss * torch.nan if self.progress.step == 12 else loss

    monkeypatch.setattr(Trainer, "step", poisoned)
    text = r"the loss is nan at step 13 of 30; all weights are finite. Lower training.learning_rate"
    with pytest.raises(TrainingError, match=text):
        train_and_evaluate(config, run)
    assert not run.metrics.exists()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        train_and_evaluate(config, run)
    assert json.loads(run.metrics.read_text())["metrics"]["P@1"] > 0
    assert len(rows(run)) == 3


def test_no_gpu_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"training\.device: cuda, but torch sees no CUDA GPU"):
        choose_device("cuda")
    assert choose_device("auto") == torch.device("cpu")


def test_fan_in_above_the_feature_size_is_refused(tiny):
    config = tiny.config(layer={"fan_in": 64})
    with pytest.raises(
        ConfigError, match=r"layer\.fan_in: 64 is more than the 32 features that haste reads"
    ):
        train_and_evaluate(config, tiny.run_dir("run", config))


def test_the_triton_kernel_trains_like_torch(tiny):
    losses = {}
    for backend in ("torch", "triton"):
        config = tiny.config(head=8, training={"backend": backend, "momentum": 0.9, "epochs": 3})
        run = tiny.run_dir(backend, config)
        train_and_evaluate(config, run)
        losses[backend] = [float(row["loss"]) for row in rows(run)]
    assert losses["triton"] == pytest.approx(losses["torch"], rel=1e-4)


def by_hand(tiny, **changes):
    """The least that a run's YAML can say."""
    inputs = {name: str(getattr(tiny, name)) for name in ("corpus", "tokens", "model")}
    run = {"dataset": "tiny", "method": "mine", "variant": "default", "seed": 5, "inputs": inputs}
    path = tiny.root / "mine.yaml"
    write_yaml(path, {**run, "training": {"epochs": 1, "batch_size": 32}, **changes})
    return path


def test_a_run_written_by_hand_trains_and_predicts(tiny):
    path, out = by_hand(tiny), tiny.root / "out"
    done = CliRunner().invoke(app, ["train", str(path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert read_json(out / "metrics.json")["metrics"]["P@1"] > 0
    # what it was trained with is all written down
    assert read_yaml(out / "config.yaml")["layer"]["fan_in"] == 32
    texts = tiny.root / "texts.txt"
    texts.write_text("w01 w02\n")
    command = ["predict", "--run", str(out), "--input", str(texts), "--k", "2"]
    assert len(CliRunner().invoke(app, command).stdout.splitlines()) == 3


def test_a_head_without_an_order_is_refused(tiny):
    path = by_hand(tiny, layer={"head_ratio": 0.1})
    result = CliRunner().invoke(app, ["train", str(path)])
    assert isinstance(result.exception, ConfigError)
    assert "without inputs.order nothing says which labels are the head" in str(result.exception)


def test_clusters_that_a_setting_needs_and_an_order_without_a_tail_are_refused(tiny):
    result = CliRunner().invoke(app, ["train", str(by_hand(tiny, auxiliary={"scale": 0.5}))])
    assert isinstance(result.exception, ConfigError)
    assert "auxiliary.scale: 0.5, but without inputs.clusters" in str(result.exception)
    full = tiny.config(head=40, layer={"fan_in": 16, "head_ratio": 0.5})
    with pytest.raises(ConfigError, match="the head takes all 40 labels"):
        train_and_evaluate(full, tiny.run_dir("full", full))
