"""An epoch's row goes to TensorBoard by torch's own writer, which needs a package of its own."""

import sys
import types

import pytest

from haste.errors import ConfigError
from haste.training.loop import log_to_tensorboard
from haste.training.run import train_and_evaluate

ROW = {"epoch": 2, "step": 40, "loss": 1.5, "P@1": 50.0}


def test_each_number_of_a_row_is_a_scalar_at_its_step(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def __enter__(self):
            return self

        def __exit__(self, *_):
            written.append(("closed", self.folder, None))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log_to_tensorboard(tmp_path, ROW)
    assert written == [("loss", 1.5, 40), ("P@1", 50.0, 40), ("closed", str(tmp_path), None)]


def test_the_package_is_named_where_it_is_missing_before_anything_is_trained(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = tiny.config(training={"tensorboard": True, "checkpoint_minutes": 0.0})
    run = tiny.run_dir("run", config)
    with pytest.raises(ConfigError, match=r"training\.tensorboard: .*tensorboard"):
        train_and_evaluate(config, run)
    assert not run.checkpoint.exists()
    assert not run.history.exists()
