"""What only a GPU shows: that steps do not wait for it, and what saves its memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig

from haste.benchmarks.documents import Statistics, draw_labels, draw_tokens
from haste.benchmarks.scale import Case, Problem, build, measure, problem_of
from haste.config import GridConfig
from haste.data.batches import collate
from haste.files import read_yaml
from haste.training.step import TrainStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
PAPER = Path(__file__).parents[2] / "workflow/configs/paper.yaml"

SHAPE = BertConfig(
    vocab_size=2000,
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=1024,
)


def problem(preset: str) -> Problem:
    grid = GridConfig.from_dict(read_yaml(PAPER))
    found = problem_of(Case("Amazon-670K", "haste", preset), grid)
    return replace(found, about=Statistics(1000, 20_000, 5.0, 60), architecture=SHAPE)


@pytest.fixture
def device():
    return torch.device("cuda", 0)


@pytest.mark.parametrize("preset", ["speed", "memory"])
def test_a_step_does_not_wait_for_the_gpu(device, preset):
    its = problem(preset)
    model = build(its, device)
    step = TrainStep(its.config, model, 10_000)
    random = np.random.default_rng(0)
    tokens = draw_tokens(its.about, 64, 128, 2000, random)
    labels = draw_labels(its.about, 64, 2000, random)
    batch = collate(tokens, labels, np.arange(64)).pinned()
    for done in range(3):
        step(batch, done)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcome = step(batch, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(outcome.loss)


def test_the_memory_preset_takes_less_memory(device):
    found = {name: measure(problem(name), device)[0] for name in ("speed", "memory")}
    assert found["memory"]["steps_allocated_gib"] < 0.8 * found["speed"]["steps_allocated_gib"]
    assert found["speed"]["waits_a_step"] == 0
