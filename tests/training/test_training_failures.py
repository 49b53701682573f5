"""What a run that cannot go on says."""

import pytest
import torch

from haste.errors import TrainingError
from haste.training.failures import GIB, MemoryUse, out_of_memory
from haste.training.run import train_and_evaluate
from haste.training.step import TrainStep

MESSAGE = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 100 GiB"


def said(config, use, message=MESSAGE):
    return str(out_of_memory(config, torch.OutOfMemoryError(message), use, 7))


def test_a_batch_that_fits_is_named(tiny):
    config = tiny.config(
        training={"batch_size": 128}, encoder={"kind": "transformer", "max_len": 64}
    )
    text = said(config, MemoryUse(100 * GIB, 95 * GIB, 25 * GIB, 10 * GIB))
    assert text.startswith(
        "haste/default seed 0: out of GPU memory in step 7: 115.0 GiB needed, the GPU has 100.0 GiB. The "
        "output layer takes 25.0 GiB, encoder and optimiser 10.0 GiB, the rest is for the batch of 128. "
    )
    # 80 GiB for 128 documents, 60 there: 96 and so three quarters of the length
    assert (
        "To go on, lower training.batch_size from 128 to 96, or lower encoder.max_len from 64 to 48, or "
        in text
    )
    assert "encoder.gradient_checkpointing: true" in text


def test_what_is_set_already_is_not_advised(tiny):
    config = tiny.config(encoder={"kind": "transformer", "gradient_checkpointing": True})
    text = said(config, MemoryUse(100 * GIB, 95 * GIB, 25 * GIB, 10 * GIB))
    assert "gradient_checkpointing" not in text


@pytest.mark.parametrize(
    ("layer", "advice"),
    [
        # 40 of 120 GiB too many: two thirds of 128 would fit, and the next fan-in is 64
        ({"fan_in": 128}, "lower layer.fan_in from 128 to 64"),
        ({"pattern": "dense"}, "use a GPU with more memory"),
    ],
)
def test_a_layer_that_is_too_large_is_what_to_change(tiny, layer, advice):
    config = tiny.config(layer=layer)
    text = said(config, MemoryUse(100 * GIB, 115 * GIB, 120 * GIB, 10 * GIB))
    assert advice in text
    assert "batch_size from" not in text
    assert "max_len from" not in text


@pytest.mark.parametrize(("backend", "helps"), [("torch", True), ("triton", False)])
def test_more_chunks_are_advised_where_they_save_memory(tiny, backend, helps):
    layer = {"pattern": "dense", "chunks": 4}
    config = tiny.config(layer=layer, training={"backend": backend})
    text = said(config, MemoryUse(100 * GIB, 95 * GIB, 25 * GIB, 10 * GIB))
    assert ("raise layer.chunks from 4 to 8" in text) == helps


def test_where_nothing_helps_it_says_so(tiny):
    text = said(tiny.config(), MemoryUse(100 * GIB, 115 * GIB, 120 * GIB, 10 * GIB))
    assert text.endswith("the rest is for the batch of 16. To go on, use a GPU with more memory.")


def test_an_allocator_that_does_not_say_how_much_it_lacks(tiny):
    text = said(tiny.config(), MemoryUse(100 * GIB, 95 * GIB, 25 * GIB, 10 * GIB), "out of memory")
    assert "95.0 GiB needed" in text


def test_memory_that_runs_out_while_training(tiny, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError(MESSAGE)

    monkeypatch.setattr(TrainStep, "__call__", full)
    config = tiny.config()
    with pytest.raises(TrainingError, match=r"out of GPU memory in step 1: 20\.0 GiB needed"):
        train_and_evaluate(config, tiny.run_dir("run", config))


def test_the_tensor_that_is_not_finite_is_named(tiny, monkeypatch):
    step = TrainStep.__call__

    def poisoned(self, batch, done, begins=None):
        if done == 4:
            self.model.layer.bias[3] = torch.inf
        return step(self, batch, done, begins)

    monkeypatch.setattr(TrainStep, "__call__", poisoned)
    config = tiny.config()
    text = r"the loss is (nan|inf) at step 5 of 20; not finite: .*layer\.bias"
    with pytest.raises(TrainingError, match=text):
        train_and_evaluate(config, tiny.run_dir("run", config))
