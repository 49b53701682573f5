"""What counts as a finished run, in its own folder and no other."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from haste.cli import app
from haste.errors import ConfigError, DataError
from haste.files import read_json, read_yaml, write_yaml
from haste.labels.order import LabelOrder
from haste.report.runs import load_run
from haste.run_lock import RunLockedError, locked
from haste.runs import as_trained, differences, fingerprint, input_digest, is_done, results
from haste.training.loop import Trainer
from haste.training.run import train_and_evaluate


@pytest.fixture
def finished(tiny):
    """A configuration and its finished run."""
    config = tiny.config(training={"epochs": 1})
    run = tiny.run_dir("run", config)
    train_and_evaluate(config, run)
    return config, run


@pytest.fixture
def steps(finished, monkeypatch):  # noqa: ARG001, which trains first
    """Grows with every step that is taken after that."""
    taken, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *given: taken.append(1) or step(*given))
    return taken


def content(run):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.root.iterdir()}


def test_settings_that_decide_no_number_do_not_count(tiny, finished):
    config, run = finished
    same = tiny.config(training={"epochs": 1, "checkpoint_minutes": 9.0, "threads": 2})
    assert fingerprint(config) == fingerprint(same)
    assert is_done(run, same)
    for other in ({"learning_rate": 0.06}, {"evaluate": "validation"}):
        changed = tiny.config(training={"epochs": 1, **other})
        assert fingerprint(config) != fingerprint(changed)
        assert not is_done(run, changed)


def test_a_finished_run_keeps_settings_that_decide_no_number(tiny, finished):
    config, run = finished
    for training in ({"threads": 2}, {"checkpoint_minutes": 9.0}, {"tensorboard": True}):
        other = tiny.config(training={"epochs": 1, **training})
        assert as_trained(run, other) == config
        another = tiny.config(training={"epochs": 2, **training})
        assert as_trained(run, another) == another
        assert as_trained(tiny.run_dir("nothing", other), other) == other
    run.resources.unlink()
    assert as_trained(run, other) == other


def test_a_configuration_that_is_too_old_for_a_key_has_its_default(tiny):
    config = tiny.config(head=8, layer={"fan_in": 16, "head_ratio": 0.2})
    tuned = replace(config, training=replace(config.training, tune_tail_bias=True))
    written = config.as_dict()
    del written["training"]["tune_tail_bias"]
    assert differences(config, written) == []
    there = "training.tune_tail_bias is False there and True here"
    assert differences(tuned, written) == [there]
    assert differences(config, {**written, "seed": 9}) == ["seed is 9 there and 0 here"]
    assert differences(config, {"later": 1})
    assert differences(config, None)


def test_results_of_an_older_configuration_do_not_count(tiny, finished):
    config, run = finished
    assert is_done(run, config)
    later = tiny.config(training={"epochs": 1, "learning_rate": 0.0001})
    # as `haste configure` does, and a person
    write_yaml(run.config, later.as_dict())
    assert not is_done(run, later)
    assert not is_done(run, config)
    with pytest.raises(DataError, match=r"training\.learning_rate is 0\.05 there and 0\.0001 here"):
        load_run(run.root)


def test_results_of_other_inputs_do_not_count(tiny, finished):
    config, run = finished
    order = Path(config.inputs.order)
    kept = order.read_bytes()
    order.unlink()
    assert is_done(run, config), "what is not there cannot be compared"
    tiny.order(4).rename(order)
    assert not is_done(run, config)
    with pytest.raises(DataError, match="of other inputs"):
        load_run(run.root)
    order.write_bytes(kept)
    assert is_done(run, config)


def test_results_count_where_an_order_differs_in_its_cohesion_alone(finished):
    config, run = finished
    path = Path(config.inputs.order)
    order = LabelOrder.load(path)
    # as on another kind of CPU, whose embeddings differ in their last digits
    replace(order, cohesion=np.full(order.n_groups, 0.5, np.float32)).save(path)
    assert is_done(run, config)
    replace(order, labels=order.labels[::-1].copy()).save(path)
    assert not is_done(run, config)


def test_results_that_say_the_files_of_their_orders_count(finished):
    config, run = finished
    resources = read_json(run.resources)
    of_files = input_digest(config.inputs, whole_orders=True)
    assert resources["run"]["inputs"] != of_files
    resources["run"]["inputs"] = of_files
    del resources["crc32"]
    run.resources.write_text(json.dumps(resources))
    assert is_done(run, config)


def test_results_from_before_they_said_what_they_are_of_count_by_the_config(tiny, finished):
    config, run = finished
    resources = read_json(run.resources)
    del resources["run"], resources["crc32"], resources["digests"]
    run.resources.write_text(json.dumps(resources))
    assert is_done(run, config)
    assert not is_done(run, tiny.config())
    load_run(run.root)


def test_a_run_that_says_half_of_what_it_is_of_is_not_done(finished):
    config, run = finished
    described = read_json(run.resources)
    described.pop("crc32")
    run.resources.write_text(json.dumps({**described, "run": {"inputs": ""}}))
    assert not is_done(run, config)
    with pytest.raises(DataError, match=r"resources\.json: not the resources of a run"):
        load_run(run.root)


def test_a_run_with_a_checkpoint_is_not_done(finished):
    config, run = finished
    run.checkpoint.mkdir()
    (run.checkpoint / ".left").touch()
    assert is_done(run, config)
    (run.checkpoint / "state.safetensors").touch()
    assert not is_done(run, config)
    with pytest.raises(DataError, match="stopped before its end"):
        load_run(run.root)


@pytest.mark.parametrize("name", ["metrics", "resources", "history"])
def test_a_changed_digit_is_found(finished, name):
    _, run = finished
    path = getattr(run, name)
    text = path.read_text()
    at = max(text.rfind(digit) for digit in "12345678" if digit in text)
    path.write_text(f"{text[:at]}{9 - int(text[at])}{text[at + 1 :]}")
    with pytest.raises(
        DataError, match=rf"{path.name}: is not what was written.*haste train --force"
    ):
        load_run(run.root)


def test_a_finished_run_is_left_alone_unless_forced(finished, steps, caplog):
    caplog.set_level("INFO")
    _, run = finished
    before = content(run)
    done = CliRunner().invoke(app, ["train", str(run.config)])
    assert done.exit_code == 0, done.output
    assert "has finished with this configuration" in caplog.text
    assert (content(run), steps) == (before, [])
    assert CliRunner().invoke(app, ["train", str(run.config), "--force"]).exit_code == 0
    assert steps
    assert content(run)["model.safetensors"][0] == before["model.safetensors"][0]


def test_old_results_go_before_the_first_step(tiny, finished, monkeypatch):
    _, run = finished
    later = tiny.config(training={"epochs": 1, "learning_rate": 0.0001})
    write_yaml(run.config, later.as_dict())

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(later, run)
    assert not any(path.exists() for path in results(run))


def test_a_run_that_trains_elsewhere_is_refused(finished):
    config, run = finished
    before = content(run)
    with locked(run.root), pytest.raises(RunLockedError):
        train_and_evaluate(config, run, force=True)
    assert content(run) == before


def test_a_folder_of_something_else_is_left_as_it_is(tiny, finished):
    config, _ = finished
    folder = tiny.root / "folder"
    mine = folder / "mine.yaml"
    folder.mkdir()
    write_yaml(mine, {**config.as_dict(), "seed": 3})
    files = {"config.yaml": "name: grid\ndatasets: [a]\n", "model.safetensors": "weights"}
    for name, text in files.items():
        (folder / name).write_text(text)
        for option in ((), ("--force",)):
            done = CliRunner().invoke(app, ["train", str(mine), *option])
            assert isinstance(done.exception, ConfigError)
            assert f"{folder / name}: would be replaced" in str(done.exception)
            assert "--out" in str(done.exception)
        assert (folder / name).read_text() == text
        assert {path.name for path in folder.iterdir()} == {"mine.yaml", name}
        (folder / name).unlink()


def test_a_second_run_file_does_not_replace_the_run_of_the_first(tiny, finished, steps):
    config, run = finished
    before = content(run)
    second = run.root / "second.yaml"
    write_yaml(second, replace(config, seed=3).as_dict())
    done = CliRunner().invoke(app, ["train", str(second)])
    assert isinstance(done.exception, ConfigError)
    assert f"{run.config}: is of another run (seed is 0 there and 3 here)" in str(done.exception)
    second.rename(tiny.root / "second.yaml")
    assert (content(run), steps) == (before, [])
    command = ["train", str(tiny.root / "second.yaml"), "--out", str(run.root), "--force"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert read_yaml(run.config)["seed"] == 3
