"""Every layer on a GPU does what it does on a CPU, its Triton kernel included."""

import copy

import pytest
import torch
from test_layers_steps import LAYERS, L, batch

from haste.kernels.rounding import generator
from haste.kernels.state import Positives, StepContext
from haste.layers.base import OutputLayer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def on_gpu(layer: OutputLayer, backend: str) -> OutputLayer:
    moved = copy.deepcopy(layer).cuda()
    for part in moved.modules():
        if hasattr(part, "options"):
            part.options = type(part.options)(**{**vars(part.options), "backend": backend})
    return moved


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_steps_logits_and_best_labels_agree(name, backend):
    here = LAYERS[name]()
    there = on_gpu(here, backend)
    for step in range(3):
        features, positives, _ = batch(step)
        moved = Positives(positives.label_row.cuda(), positives.doc.cuda())
        want = here.step(features, positives, StepContext(0.05, 0, step))
        got = there.step(features.cuda(), moved, StepContext(0.05, 0, step))
        assert torch.allclose(got.loss.cpu(), want.loss, rtol=1e-4)
        assert torch.allclose(got.dx.cpu(), want.dx, rtol=1e-3, atol=1e-3)
    features, _, _ = batch()
    want = here.logits(features, slice(0, L))
    assert torch.allclose(there.logits(features.cuda(), slice(0, L)).cpu(), want, atol=1e-3)
    scores, rows = there.topk(features.cuda(), 5)
    assert torch.allclose(want.gather(1, rows.cpu()), scores.cpu(), atol=1e-3)
    assert torch.allclose(scores.cpu(), want.topk(5).values, atol=1e-3)


@pytest.mark.parametrize("name", ["unstructured", "fixed", "group", "block", "head_tail"])
def test_rewiring_runs_and_keeps_the_number_of_connections(name):
    layer = on_gpu(LAYERS[name](), "torch")
    features, positives, _ = batch()
    moved = Positives(positives.label_row.cuda(), positives.doc.cuda())
    before = layer.trained_parameters()
    stats = layer.rewire(generator(torch.device("cuda"), 0, 1), (features.cuda(), moved))
    assert stats.moved > 0
    assert layer.trained_parameters() == before
