"""Whole runs on the made-up data set: files, learning, interruption."""

import csv
import errno
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import forked
from haste.checksums import read_description
from haste.cli import app, command
from haste.errors import ConfigError, DataError, TrainingError
from haste.files import read_json, read_yaml, write_yaml
from haste.inputs import RunInputs
from haste.labels.order import LabelOrder
from haste.metrics.metrics import MAX_RANK
from haste.metrics.names import HISTORY
from haste.metrics.runs import evaluate_run, read_predictions
from haste.metrics.truth import load_truth, truth_of
from haste.model import Model
from haste.predict import Predictor
from haste.tensor_file import load_tensors, save_tensors
from haste.training import checkpoint
from haste.training import run as training_run
from haste.training.loop import Trainer
from haste.training.run import train_and_evaluate
from haste.training.stopping import StopSignals

LABEL_TREE = {"pattern": "label_tree", "group_size": 16, "shortlist": 2, "bias_init": "zero"}
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
    "label-tree": LABEL_TREE,
}


SPARTEX = {
    "layer": {"pattern": "fixed_fan_in", "fan_in": 16, "loss": "squared_hinge"},
    "rewire": {"interval": 3, "until": 1.0, "threshold": 0.05},
    "auxiliary": {"scale": 0.5, "cluster_size": 16},
    "training": {"optimizer": "adamw", "learning_rate": 0.01},
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
    assert tuple(history[0]) == HISTORY
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
        SPARTEX,
        {"layer": {**LABEL_TREE, "tree_levels": 2, "shortlist": 1, "dropout": 0.2}},
    ],
    ids=[
        *("head-tail", "private", "projections", "log-prior", "auxiliary", "released", "spartex"),
        "label-tree",
    ],
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
        training_run, "truth_of", lambda *given: read.append(given[1]) or truth_of(*given)
    )
    train_and_evaluate(config, run)
    # every run is evaluated on validation as it trains; test is read where it is asked for
    assert sorted(read) == sorted({"validation", split})
    truth = {name: load_truth(tiny.corpus, name) for name in (split, other)}
    ids, scores = read_predictions(run)
    assert len(ids) == truth[split].positives.shape[0] != truth[other].positives.shape[0]
    metrics = read_description(run.metrics, "it")
    assert metrics["metrics"] == truth[split].evaluate(ids, scores)["metrics"]
    if split == "validation":
        assert metrics["metrics"]["P@1"] == pytest.approx(float(rows(run)[-1]["P@1"]))
    run.metrics.unlink()
    assert evaluate_run(run) == metrics == read_description(run.metrics, "it")


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


RESUMED = {
    "head": {"head": 8, **SECTIONS},
    "adamw": SPARTEX,
    "label-tree": {"layer": {**SECTIONS["layer"], **LABEL_TREE}},
}


@pytest.mark.parametrize(
    ("name", "stop_after"),
    [*(("head", step) for step in (1, 7, 10, 19, 30)), ("adamw", 7), ("label-tree", 7)],
)
def test_a_stopped_run_goes_on_to_the_same_weights(tiny, stop, name, stop_after):
    training = {**RESUMED[name].get("training", {}), **SECTIONS["training"]}
    config = tiny.config(**{**RESUMED[name], "training": training})
    whole = tiny.run_dir("whole", config)
    train_and_evaluate(config, whole)

    cut = tiny.run_dir("cut", config)
    stop(config, cut, stop_after)
    assert not cut.metrics.exists()
    # as a job that is started again finds it: its outputs are removed first
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


@pytest.mark.parametrize("name", RESUMED)
def test_a_restored_model_predicts_what_the_run_did(tiny, name):
    config = tiny.config(**RESUMED[name])
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    documents = RunInputs.load(config).tokens.splits["test"]
    restored = Predictor(run, torch.device("cpu")).model.predict(documents, MAX_RANK)
    for got, want in zip(restored, read_predictions(run), strict=True):
        assert np.array_equal(got, want)


STOPPED = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@pytest.mark.parametrize("how", STOPPED)
def test_a_killed_process_goes_on_to_the_same_weights(tiny, how):
    config = tiny.config(
        head=8, **{**SECTIONS, "training": {"epochs": 8, "checkpoint_minutes": 0.0}}
    )
    whole, cut = tiny.run_dir("whole", config), tiny.run_dir("cut", config)
    train_and_evaluate(config, whole)
    train, output = ("haste.cli:main", ["train", str(cut.config)]), cut.root.with_name("output")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = forked.start(*train, output, environment, cut.root)
    try:
        deadline = time.monotonic() + 60
        while not cut.checkpoint.joinpath(checkpoint.FILE).exists() and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, how)
        process.join(60)
    finally:
        process.kill()
    errors = output.read_text()
    assert process.exitcode == STOPPED[how], errors
    if how != signal.SIGKILL:
        assert f"stopped by {how.name} after step" in errors
        assert "Traceback" not in errors
    assert not cut.metrics.exists()
    done = forked.run(*train, environment=environment)
    assert done.returncode == 0
    assert "resuming from step" in done.stdout
    want, got = load_file(whole.model), load_file(cut.model)
    assert all(torch.equal(want[k], got[k]) for k in want)
    # nothing is left of the checkpoint, of the killed save or of the lock
    names = {path.name for path in cut.root.iterdir()}
    assert names == {path.name for path in whole.root.iterdir()} == FILES


FILES = {
    *("config.yaml", "history.csv", "metrics.json"),
    *("model.safetensors", "predictions.npz", "resources.json"),
}


@pytest.mark.parametrize("at", ["save", "predict", "write_predictions"])
def test_a_signal_after_the_last_step_leaves_the_evaluation_alone(tiny, monkeypatch, caplog, at):
    config = tiny.config()
    run = tiny.run_dir("run", config)
    steps = []
    owner = {"save": Trainer, "predict": Model, "write_predictions": training_run}[at]
    original = getattr(owner, at)

    def interrupted(self, *arguments, **options):
        if at != "predict" or arguments[1:] == (MAX_RANK,):
            os.kill(os.getpid(), signal.SIGHUP)
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, at, interrupted)
        with pytest.raises(SystemExit) as stopped:
            train_and_evaluate(config, run)
    assert stopped.value.code == 129
    assert "stopped by SIGHUP after the last step" in caplog.text
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *given: steps.append(1) or step(*given))
    train_and_evaluate(config, run)
    assert not steps
    assert {path.name for path in run.root.iterdir()} == FILES


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(change):
    """Damage that the digest does not show: what is in the file is not what it should be."""

    def damage(path):
        tensors, header = load_tensors(path)
        change(tensors, header)
        save_tensors(path, tensors, header)

    return damage


def in_header(**values):
    return rewrite(lambda _, header: header.update(values))


DAMAGE = {
    "text": lambda path: path.write_bytes(b"not a checkpoint"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "bit": flip,
    "progress": in_header(progress="{"),
    "other progress": in_header(progress='{"stride": 3}'),
    "no tensor": rewrite(lambda tensors, _: tensors.pop("layer.bias")),
    "shape": rewrite(lambda tensors, _: tensors.update({"layer.bias": torch.zeros(3)})),
    "optimizers": in_header(optimizers="[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_said_and_the_run_starts_anew(tiny, stop, caplog, damage):
    config = tiny.config()
    whole, cut = tiny.run_dir("whole", config), tiny.run_dir("cut", config)
    train_and_evaluate(config, whole)
    stop(tiny.config(training={"checkpoint_minutes": 0.0}), cut, 7)
    DAMAGE[damage](cut.checkpoint / checkpoint.FILE)
    train_and_evaluate(config, cut)
    assert f"{cut.checkpoint / checkpoint.FILE}: cannot be read" in caplog.text
    assert "starting anew" in caplog.text


def test_a_checkpoint_of_other_inputs_is_said_and_the_run_starts_anew(tiny, stop, caplog):
    """As where the documents were cut anew, or an order of labels was made anew, since the run was stopped."""
    config = tiny.config(training={"checkpoint_minutes": 0.0})
    run = tiny.run_dir("run", config)
    stop(config, run, 7)
    order = LabelOrder.load(Path(config.inputs.order))
    replace(order, labels=order.labels[::-1].copy()).save(Path(config.inputs.order))
    train_and_evaluate(config, run)
    assert (
        f"{run.checkpoint / checkpoint.FILE}: is of another configuration or of other inputs"
        in (caplog.text)
    )
    again = tiny.run_dir("again", config)
    train_and_evaluate(config, again)
    assert read_json(run.metrics)["metrics"] == read_json(again.metrics)["metrics"]


def test_a_damaged_model_is_named(tiny):
    config = tiny.config()
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    flip(run.model)
    with pytest.raises(DataError, match=r"model\.safetensors: damaged"):
        Predictor(run, torch.device("cpu"), verify=True)


@pytest.mark.parametrize(
    ("step", "minutes", "known", "unknown"),
    [
        (1, 5.0, "No step had changed a weight", "training.learning_rate"),
        (13, 5.0, r"Lower training\.learning_rate \(0\.05\)", "checkpoint"),
        (13, 0.0, r"Lower training\.learning_rate .*the last checkpoint, from before, is in", "1e"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_with_what_is_known(
    tiny, monkeypatch, step, minutes, known, unknown
):
    config = tiny.config(training={"epochs": 3, "checkpoint_minutes": minutes})
    run = tiny.run_dir("run", config)
    original = Trainer.step

    def poisoned(self, rows):
        loss = original(self, rows)
        return loss * torch.nan if self.progress.step == step - 1 else loss

    monkeypatch.setattr(Trainer, "step", poisoned)
    text = rf"the loss is nan at step {step} of 30; all weights are finite\. {known}"
    with pytest.raises(TrainingError, match=text) as error:
        train_and_evaluate(config, run)
    assert unknown not in str(error.value)
    assert not run.metrics.exists()
    if not minutes:
        with pytest.raises(TrainingError, match="first step after the checkpoint"):
            train_and_evaluate(config, run)
    monkeypatch.setattr(Trainer, "step", original)
    train_and_evaluate(config, run)
    assert len(rows(run)) == 3


def test_weights_that_are_not_finite_before_training_are_the_models_fault(tiny):
    model = tiny.root / "nan"
    shutil.copytree(tiny.model, model)
    weights = load_file(model / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][7, 3] = torch.nan
    save_file(weights, model / "model.safetensors")
    config = tiny.config()
    config = replace(config, inputs=replace(config.inputs, model=str(model)))
    with pytest.raises(DataError, match=r"nan: a model made from it .*embedding"):
        train_and_evaluate(config, tiny.run_dir("run", config))


@pytest.mark.parametrize("target", ["history", "model", "checkpoint"])
def test_a_full_disk_names_what_could_not_be_written(tiny, monkeypatch, capsys, target):
    config = tiny.config(training={"checkpoint_minutes": 0.0})
    run = tiny.run_dir("run", config)
    path = run.checkpoint / checkpoint.FILE if target == "checkpoint" else getattr(run, target)
    replaced = Path.replace

    def full(self, to):
        if Path(to) == path:
            raise OSError(errno.EDQUOT, "Disk quota exceeded", str(self))
        return replaced(self, to)

    monkeypatch.setattr(Path, "replace", full)
    monkeypatch.setattr(sys, "argv", ["haste", "train", str(run.config)])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert f"haste: error: disk full while writing {path} (Disk quota exceeded)" in said


def test_triton_has_neither_the_loss_nor_the_optimiser_of_spartex(tiny):
    for changes in ({"layer": SPARTEX["layer"]}, {"training": SPARTEX["training"]}):
        training = {**changes.get("training", {}), "backend": "triton"}
        config = tiny.config(**{**changes, "training": training})
        with pytest.raises(ConfigError, match=r"training\.backend: triton has neither"):
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
    chosen = {"encoder": {"max_len": 12}, "training": {"epochs": 1, "batch_size": 32}}
    path = tiny.root / "mine.yaml"
    write_yaml(path, {**run, **chosen, **changes})
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
    assert len(CliRunner().invoke(app, command).stdout.rstrip("\n").split("\t")) == 2


def test_time_of_an_epoch_is_without_validation_and_checkpoints(tiny, monkeypatch):
    config = tiny.config(
        training={"epochs": 3, "validate_every": 1, "checkpoint_minutes": 0.0, "device": "cpu"}
    )
    ended, saved = Trainer._end_epoch, Trainer.save

    def slowly(what):
        def call(*arguments):
            time.sleep(0.4)
            return what(*arguments)

        return call

    monkeypatch.setattr(Trainer, "_end_epoch", slowly(ended))
    monkeypatch.setattr(Trainer, "save", slowly(saved))
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    seconds = [float(row["seconds"]) for row in rows(run)]
    # a checkpoint after each of thirty steps, and three ends of an epoch: 13 seconds
    assert seconds[-1] < 6.0


def test_threads_and_determinism_are_the_callers_again(tiny):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        config = tiny.config(training={"epochs": 1, "threads": 1, "deterministic": True})
        train_and_evaluate(config, tiny.run_dir("run", config))
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)


def test_a_checkpoint_does_not_choose_the_kernels_of_an_optimiser(tiny, stop, monkeypatch):
    """As where a run that began on a GPU goes on without one."""
    config = tiny.config(training={"epochs": 1, "checkpoint_minutes": 0.0})
    run = tiny.run_dir("run", config)
    saved = checkpoint.save

    def of_a_gpu(folder, origin, model, optimizers, progress):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                if "triton" in group:
                    group["triton"] = True
        saved(folder, origin, model, optimizers, progress)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", of_a_gpu)
        stop(config, run, 4)
    loaded = checkpoint.load
    chosen = []

    def seen(folder, origin, model, optimizers):
        progress = loaded(folder, origin, model, optimizers)
        chosen.extend(
            group["triton"]
            for each in optimizers
            for group in each.param_groups
            if "triton" in group
        )
        return progress

    monkeypatch.setattr(checkpoint, "load", seen)
    train_and_evaluate(config, run)
    assert chosen
    assert not any(chosen)


def test_a_signal_during_the_exchange_of_ranks_is_not_lost(tiny):
    """The other rank answers before it; both stop when they next exchange."""
    stopping = StopSignals()
    trainer = SimpleNamespace(
        config=tiny.config(training={"checkpoint_minutes": 60.0}),
        _last_save=time.perf_counter(),
        _check_interval=1,
        progress=SimpleNamespace(step=3),
        stop=stopping,
    )

    def collect(of_this_rank):
        with stopping.held(last=True):
            stopping.receive(signal.SIGTERM)
        return [of_this_rank, (False, None)]

    trainer.ranks = SimpleNamespace(size=2, collect=collect)
    assert Trainer._pause_if_due(trainer, torch.zeros(())) == 0.0
    assert stopping.number == signal.SIGTERM
