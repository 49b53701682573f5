"""What only a GPU shows: that steps do not wait for it, and what saves its memory."""

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, MPNetConfig

from haste.bench.documents import PublishedStatistics, draw_labels, draw_tokens
from haste.bench.scale import PRESETS, ScaleRow, Workload, measure, workload_of
from haste.bench.workload import random_transformer
from haste.data.batches import collate
from haste.encoders.transformer import transformer_encoder
from haste.files import read_yaml
from haste.grid import GridConfig
from haste.training.run import train_and_evaluate
from haste.training.step import TrainStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
PAPER = Path(__file__).parents[2] / "workflow/configs/paper.yaml"

SIZES = {
    "vocab_size": 2000,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
SHAPE = BertConfig(**SIZES)
RELATIVE = MPNetConfig(**SIZES)


def workload(preset: str, **training) -> Workload:
    grid = GridConfig.from_dict(read_yaml(PAPER))
    found = workload_of(ScaleRow("Amazon-670K", "haste", preset), grid)
    found = replace(
        found, statistics=PublishedStatistics(1000, 20_000, 5.0, 60), architecture=SHAPE
    )
    config = replace(found.config, training=replace(found.config.training, **training))
    return replace(found, config=config)


@pytest.fixture
def device():
    return torch.device("cuda", 0)


def batches_for(its: Workload, step: TrainStep, count: int, longest: int = 112) -> list:
    """Batches of 64 documents in pinned memory, the odd ones of fewer tokens."""
    random = np.random.default_rng(0)
    found = []
    padding = step.padding(draw_labels(its.statistics, 6400, 2000, random))
    for number in range(count):
        max_len = 48 if number % 2 else longest
        tokens = draw_tokens(its.statistics, 64, max_len, 2000, random)
        labels = draw_labels(its.statistics, 64, 2000, random)
        batch = collate(tokens, labels, np.arange(64))
        found.append(padding.pinned(batch) if padding else batch.pinned())
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_does_not_wait_for_the_gpu(device, preset):
    its = workload(preset)
    model = its.build(device)
    step = TrainStep(its.config, model, 10_000)
    batch = batches_for(its, step, 1)[0]
    for done in range(3):
        step(batch, done)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcome = step(batch, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(outcome.loss)


def test_presets_of_short_documents_and_their_memory(device):
    def short(preset):
        its = workload(preset)
        return replace(
            its, config=replace(its.config, encoder=replace(its.config.encoder, max_len=32))
        )

    # workspaces of products stay, but once for each stream and thread
    for name in PRESETS:
        measure(short(name), device)
    gc.collect()
    before = torch.cuda.memory_allocated()
    for name in reversed(PRESETS):
        measure(short(name), device)
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 1 << 20


def test_what_is_computed_again_takes_no_memory(device):
    found = {name: measure(workload(name), device)[0] for name in ("default", "speed")}
    kept = found["speed"]["steps_allocated_gib"]
    assert found["default"]["steps_allocated_gib"] < 0.8 * kept
    for name, values in found.items():
        assert values["synchronizations_per_step"] == 0, name
        assert values["padded_tokens_per_step"] < 1.1 * values["tokens_per_step"] + 300


def trained(its: Workload, device, steps: int = 10):
    """Losses and weights after some steps from the start."""
    torch.manual_seed(0)
    model = its.build(device)
    step = TrainStep(its.config, model, 10_000)
    model.train(True)
    batches = batches_for(its, step, steps, min(112, its.config.encoder.max_len))
    losses = [step(batch, done).loss for done, batch in enumerate(batches)]
    return step, [float(loss) for loss in losses], dict(model.tensors(momenta=True))


@pytest.mark.parametrize("rewired", [False, True])
def test_replayed_steps_are_those_that_are_launched(device, rewired):
    its = workload("speed", deterministic=True)
    its = replace(
        its, config=replace(its.config, encoder=replace(its.config.encoder, attention="torch"))
    )
    interval = 4 if rewired else 1000
    its = replace(
        its, config=replace(its.config, rewire=replace(its.config.rewire, interval=interval))
    )
    launched = replace(
        its, config=replace(its.config, training=replace(its.config.training, graphs=False))
    )
    step, got, weights = trained(its, device)
    plain, want, others = trained(launched, device)
    assert plain.graphs is None
    assert len(step.graphs._captured) == 2  # a shape for each length
    # lengths are rounded up, which changes sums in their last digits, and weights are bf16
    assert got == pytest.approx(want, rel=2e-3)
    assert want[-1] < want[0]
    for name in ("layer.tail.layer.bias", "layer.head.layer.bias"):
        assert torch.allclose(weights[name].float(), others[name].float(), atol=2e-2), name


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_a_layer_that_waits_for_the_gpu_is_stepped_between_graphs_of_the_encoder(device, scale):
    """A label tree, also beside an auxiliary loss, whose positives are padded, too."""
    its = workload("speed", learning_rate=0.001)
    config = its.config
    tree = replace(
        config.layer, pattern="label_tree", shortlist=8, head_ratio=0.0, features="shared"
    )
    config = replace(config, layer=tree, auxiliary=replace(config.auxiliary, scale=scale))
    its = replace(its, config=config)
    launched = replace(its, config=replace(config, training=replace(config.training, graphs=False)))
    step, got, weights = trained(its, device)
    plain, want, others = trained(launched, device)
    assert not step.model.layer.capturable
    assert step.graphs._captured
    assert plain.graphs is None
    # sums in another order, and a shortlist has another cluster where two are all but equal
    assert got == pytest.approx(want, rel=1e-2)
    assert want[-1] < want[0]
    for name, value in weights.items():
        if name.endswith("bias"):
            assert torch.allclose(value.float(), others[name].float(), atol=2e-2), name


def test_long_documents_with_relative_positions_are_launched(device):
    """They are padded, and the masks of plain attention come from the host, which ends a capture in an error."""
    its = replace(workload("speed"), architecture=RELATIVE)
    its = replace(its, config=replace(its.config, encoder=replace(its.config.encoder, max_len=128)))
    step, losses, _ = trained(its, device)
    assert not step.model.encoder.packed
    assert step.graphs is None
    assert losses[-1] < losses[0]


@pytest.fixture
def deterministic():
    # not an error: cuBLAS was not told before it started
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(("shape", "max_len"), [(SHAPE, 32), (SHAPE, 128), (RELATIVE, 32)])
def test_packed_steps_that_are_replayed_are_those_that_are_launched(device, shape, max_len):
    """To the last digit, so that a run which goes on is the same: each shape begins with a launch."""
    its = replace(workload("default", deterministic=True), architecture=shape)
    its = replace(
        its, config=replace(its.config, encoder=replace(its.config.encoder, max_len=max_len))
    )
    found = []
    for replayed in (True, False):
        torch.manual_seed(0)
        step = TrainStep(its.config, its.build(device), 10_000)
        step.model.train(True)
        batch = batches_for(its, step, 1, max_len)[0]
        if not replayed:
            step.graphs.ready = lambda _: False
        losses = [float(step(batch, done).loss) for done in range(6)]
        assert len(step.graphs._captured) == replayed
        found.append((losses, step.model.tensors(momenta=True)))
    assert found[0][0] == found[1][0]
    assert len(set(found[0][0])) == 6
    for name, value in found[0][1].items():
        assert torch.equal(value, found[1][1][name]), name


@pytest.mark.parametrize(("shape", "max_len"), [(SHAPE, 32), (SHAPE, 112), (RELATIVE, 32)])
def test_packed_features_and_gradients_are_those_of_transformers_in_bf16(device, shape, max_len):
    its = workload("default")
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    shape = type(shape)(**{**shape.to_dict(), **no_dropout})
    random = np.random.default_rng(0)
    tokens = draw_tokens(its.statistics, 64, max_len, 2000, random)
    batch = collate(tokens, None, np.arange(64)).to_torch(device)
    found = {}
    for attention, dtype in (
        ("packed", torch.bfloat16),
        ("torch", torch.bfloat16),
        ("torch", torch.float32),
    ):
        torch.manual_seed(0)
        model = random_transformer(shape, torch.float32, device).to(dtype)
        packed = attention == "packed"
        config = replace(
            its.config.encoder, attention=attention, max_len=max_len, gradient_checkpointing=packed
        )
        encoder = transformer_encoder(model, config)
        assert encoder.packed == packed
        encoder.train()
        features = encoder(batch.ids, batch.offsets, None, batch.longest)
        weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
        (features.float() * weights.to(device)).sum().backward()
        named = dict(encoder.named_parameters())
        found[attention, dtype] = {
            "features": features.detach().double(),
            **{name: each.grad.double() for name, each in named.items() if each.grad is not None},
        }
    exact = found["torch", torch.float32]
    assert len(exact) > 60

    def far(own, name):
        return float((own[name] - exact[name]).norm() / exact[name].norm().clamp(min=1e-12))

    for name in exact:
        if name.endswith(("key.bias", "attn.k.bias")):
            # which no result depends on
            continue
        plain = far(found["torch", torch.bfloat16], name)
        assert far(found["packed", torch.bfloat16], name) < 1.5 * plain + 2e-3, name


@pytest.mark.parametrize("preset", ["default", "speed"])
def test_replayed_steps_draw_new_dropout_and_take_new_step_sizes(device, preset):
    its = workload(preset)
    torch.manual_seed(0)
    step = TrainStep(its.config, its.build(device), 10_000)
    step.model.train(True)
    batch = batches_for(its, step, 1)[0]
    for done in range(3):
        step(batch, done)
    before = {k: v.clone() for k, v in step.model.tensors(momenta=True).items()}
    found = []
    for done in (7, 7, 8):
        for name, value in step.model.tensors(momenta=True).items():
            value.copy_(before[name])
        found.append(float(step(batch, done).loss))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] != pytest.approx(found[2], rel=1e-4)
    step.config = replace(its.config, training=replace(its.config.training, learning_rate=0.0))
    head = step.model.tensors(momenta=False)["layer.head.layer.weight"]
    step.model.layer.head.layer.momentum.zero_()
    kept = head.clone()
    step(batch, 9)
    assert torch.equal(head, kept)


@pytest.mark.parametrize("encoder", [{}, {"gradient_checkpointing": True}, {"attention": "torch"}])
@pytest.mark.parametrize("stop_after", [5, 12])
def test_a_stopped_run_ends_in_the_same_weights(tiny, bert, stop, stop_after, encoder):
    settings = {"kind": "transformer", "learning_rate": 1e-3, "max_len": 12, "dtype": "bfloat16"}
    settings |= encoder
    config = tiny.config(
        head=8,
        encoder=settings,
        layer={"fan_in": 16, "head_ratio": 0.2, "dtype": "bfloat16", "dropout": 0.2},
        rewire={"interval": 6},
        training={"device": "cuda", "deterministic": True, "checkpoint_minutes": 0.0, "epochs": 3},
    )
    config = replace(config, inputs=replace(config.inputs, model=str(bert)))
    whole, cut = tiny.run_dir("whole", config), tiny.run_dir("cut", config)
    train_and_evaluate(config, whole)
    stop(config, cut, stop_after)
    train_and_evaluate(config, cut)
    want, got = load_file(whole.model), load_file(cut.model)
    assert [name for name in want if not torch.equal(want[name], got[name])] == []
