"""What a run that cannot go on says."""

import numpy as np
import pytest
import torch

from haste.data.ragged import Ragged
from haste.errors import DataError, TrainingError
from haste.inputs import RunInputs
from haste.model import build_model
from haste.training.failures import GIB, MemoryUse, check_start, not_finite, out_of_memory
from haste.training.optim import build_optimizers, optimizer_bytes
from haste.training.run import train_and_evaluate
from haste.training.step import TrainStep

MESSAGE = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 100 GiB"


def said(config, use, message=MESSAGE):
    return str(out_of_memory(config, torch.OutOfMemoryError(message), use, 7))


@pytest.fixture
def model(tiny):
    config = tiny.config()
    return build_model(config, RunInputs.load(config), torch.device("cpu"))


def test_the_memory_of_a_model_is_of_its_layer_and_of_all_else(tiny, model):
    optimizers = build_optimizers(model.encoder, model.projection, tiny.config().encoder)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                sparse = parameter is model.encoder.sparse_parameters()[0]
                gradient = torch.zeros_like(parameter)
                parameter.grad = gradient.to_sparse(1) if sparse else gradient
        optimizer.step()
    weights = sum(parameter.nbytes for parameter in model.encoder.parameters())
    kept = optimizer_bytes(optimizers)
    assert kept >= 2 * weights
    use = MemoryUse.of(model, optimizers)
    assert use == MemoryUse(0, 0, model.layer.layer_bytes(), weights + kept)


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


@pytest.mark.parametrize(
    ("batch", "length", "advice"),
    [
        # 70 GiB for the batch and 50 there, of the 95 that can be used: 91 documents, in eights
        (
            128,
            64,
            "lower training.batch_size from 128 to 88, or lower encoder.max_len from 64 to 44",
        ),
        (8, 64, "lower training.batch_size from 8 to 5, or lower encoder.max_len from 64 to 40"),
        # no documents are shorter than four tokens
        (128, 5, "lower training.batch_size from 128 to 88, or set encoder"),
    ],
)
def test_what_is_advised_fits_into_what_can_be_used(tiny, batch, length, advice):
    config = tiny.config(
        training={"batch_size": batch}, encoder={"kind": "transformer", "max_len": length}
    )
    text = said(config, MemoryUse(100 * GIB, 95 * GIB, 35 * GIB, 10 * GIB))
    assert f"To go on, {advice}" in text


@pytest.mark.parametrize(
    ("allocated", "fan_in"),
    [
        # 85 of the layer's 120 GiB are too many, so 37 of 128 weights would fit
        (160, 32),
        # it was not the size: the next smaller one all the same
        (10, 64),
    ],
)
def test_the_fan_in_that_is_advised_is_smaller_by_what_is_missing(tiny, allocated, fan_in):
    config = tiny.config(layer={"fan_in": 128})
    text = said(config, MemoryUse(100 * GIB, allocated * GIB, 120 * GIB, 10 * GIB))
    assert f"lower layer.fan_in from 128 to {fan_in}" in text


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


@pytest.mark.parametrize("message", ["out of memory", "Tried to allocate 2.00 XiB"])
def test_a_batch_of_which_nothing_is_known(tiny, message):
    text = said(tiny.config(), MemoryUse(100 * GIB, 130 * GIB, 120 * GIB, 10 * GIB), message)
    assert "130.0 GiB needed" in text


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


def test_many_tensors_that_are_not_finite_are_counted(tiny, model, tmp_path):
    for value in model.tensors(momenta=True).values():
        if value.is_floating_point():
            value.data.fill_(torch.nan)
    bad = sum(value.is_floating_point() for value in model.tensors(momenta=True).values())
    text = str(not_finite(tiny.config(), torch.nan, 5, 9, model, 0, tmp_path))
    assert f" and {bad - 3} more. " in text
    assert text.partition("not finite: ")[2].partition(" and ")[0].count(",") == 2


def test_a_momentum_that_is_not_finite_is_named(tiny, model, tmp_path):
    model.layer.momentum[2, 1] = -torch.inf
    text = str(not_finite(tiny.config(), torch.nan, 5, 9, model, 0, tmp_path))
    assert "not finite: layer.momentum. Lower training.learning_rate" in text


@pytest.mark.parametrize(("file", "told"), [("checkpoint.safetensors", True), (".tmp1", False)])
def test_a_checkpoint_is_told_of_where_there_is_one(tiny, model, tmp_path, file, told):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / file).touch()
    text = str(not_finite(tiny.config(), torch.nan, 5, 9, model, 0, folder))
    assert ("the last checkpoint" in text) == told


def test_features_that_are_not_finite_are_refused_before_training(tiny, model):
    config = tiny.config()
    documents = Ragged(np.zeros(2, np.int32), np.array([0, 2]), np.ones(2, np.float32))
    check_start(config, model, documents)
    documents.weights[1] = np.inf
    with pytest.raises(DataError, match="features of the training documents"):
        check_start(config, model, documents)
