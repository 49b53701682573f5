"""Which runs replay their steps; that they do is shown on a GPU (test_training_gpu.py)."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from haste.training.graphs import can_capture


def model(device="cuda", encoder=True, packed=False):
    return SimpleNamespace(
        device=torch.device(device),
        encoder=SimpleNamespace(capturable=encoder, packed=packed),
    )


def test_all_that_it_takes(tiny):
    assert can_capture(tiny.config(), model())


@pytest.mark.parametrize("lacking", [{"device": "cpu"}, {"encoder": False}])
def test_models_that_cannot_be_captured(tiny, lacking):
    assert not can_capture(tiny.config(), model(**lacking))


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("training", {"graphs": False}),
        ("encoder", {"gradient_checkpointing": True}),
    ],
)
def test_settings_that_leave_steps_to_the_host(tiny, section, settings):
    config = tiny.config()
    own = replace(getattr(config, section), **settings)
    assert not can_capture(replace(config, **{section: own}), model())


def test_a_packed_encoder_is_captured_with_checkpoints(tiny):
    config = tiny.config(
        encoder={"kind": "transformer", "attention": "packed", "gradient_checkpointing": True}
    )
    assert can_capture(config, model(packed=True))
