"""What each of several processes checks: its part of a layer against the whole layer in one process."""

import sys

import numpy as np
import torch

import ranks as processes
from haste.config import InputsConfig, RunConfig, build_section
from haste.distributed import Exchange, Ranks
from haste.kernels.rounding import generator
from haste.kernels.state import Positives, StepContext
from haste.labels.order import LabelOrder
from haste.layers.build import build_layer

H, L, B, HEAD = 64, 75, 7, 12
CPU = torch.device("cpu")

LAYERS = {
    "dense": {"layer": {"pattern": "dense", "chunks": 2}},
    "bottleneck": {"layer": {"pattern": "dense", "bias_init": "log_prior"}},
    "fixed": {"layer": {"pattern": "fixed_fan_in", "fan_in": 16}},
    "group": {"layer": {"fan_in": 16}},
    "block": {
        "layer": {"pattern": "block_sparse", "fan_in": 16},
        "rewire": {"scope": "group", "fraction": 0.5},
    },
    "gradient": {"layer": {"fan_in": 16}, "rewire": {"growth": "gradient"}},
    "replacement": {"layer": {"fan_in": 16, "sampling": "with_replacement"}},
    "private": {
        "layer": {"fan_in": 16, "head_ratio": 0.2, "features": "private", "dropout": 0.3},
    },
    "shared": {"layer": {"fan_in": 16, "head_ratio": 0.2, "bias_init": "log_prior"}},
    "auxiliary": {"layer": {"fan_in": 16}, "auxiliary": {"scale": 0.5}},
}


def build(name: str, ranks: Ranks = Ranks()):  # noqa: B008
    sections = {key: build_section(key, value) for key, value in LAYERS[name].items()}
    inputs = InputsConfig("corpus", "tokens", "model")
    config = RunConfig("made-up", "haste", "default", 0, inputs, **sections)
    head = HEAD if config.layer.head_ratio else 0
    labels = np.random.default_rng(0).permutation(L).astype(np.int32)
    order = LabelOrder(labels, head, 16 if config.layer.grouped else 1)
    auxiliary = {}
    if config.auxiliary.scale:
        auxiliary = {"clusters": np.arange(L) // 16, "auxiliary_scale": lambda _: 0.5}
    return build_layer(
        config,
        H,
        order,
        CPU,
        frequencies=np.arange(L) % 9,
        n_documents=100,
        ranks=ranks,
        **auxiliary,
    )


def batch(step: int):
    random = torch.Generator().manual_seed(step)
    target = torch.rand(L, B, generator=random) < 0.15
    label, doc = target.nonzero(as_tuple=True)
    return torch.randn(B, H, generator=random), Positives(label.int(), doc.int())


def check_equal(whole, part) -> None:
    """Each tensor of a part is the part of the whole's."""
    ranges = part.row_ranges()
    for name, value in whole.state_dict().items():
        rows = ranges.get(name)
        own = value if rows is None else value[rows.begin : rows.end]
        got = part.state_dict()[name]
        if value.is_floating_point():
            assert torch.allclose(got, own, rtol=1e-5, atol=1e-6), name
        else:
            assert torch.equal(got, own), name


def check_layer(ranks: Ranks, name: str) -> None:
    whole, part = build(name), build(name, ranks)
    for key, value in part.state_dict().items():
        rows = part.row_ranges().get(key)
        want = whole.state_dict()[key]
        assert torch.equal(value, want if rows is None else want[rows.begin : rows.end]), key
    size = ranks.sum(sum(b.numel() for n, b in part.named_buffers() if "clusters" not in n))
    assert size == sum(b.numel() for n, b in whole.named_buffers() if "clusters" not in n)
    for step in range(4):
        features, positives = batch(step)
        own = features[ranks.documents(np.arange(B))]
        exchange = Exchange(ranks, own, B)
        exchange.gather()
        assert torch.equal(exchange.features, features)
        context = StepContext(0.05, 0, step)
        want = whole.step(features, positives, context)
        result = part.step(exchange.features, positives, context)
        loss, dx = exchange.scatter(result.loss, result.dx)
        assert torch.allclose(loss, want.loss, rtol=1e-5)
        mine = want.dx[ranks.rank * len(own) : (ranks.rank + 1) * len(own)]
        assert torch.allclose(dx[: len(mine)], mine, rtol=1e-4, atol=1e-5)
        assert not dx[len(mine) :].any(), "nothing for a document that is repeated"
        if step % 2:
            moved = whole.rewire(generator(CPU, step), (features, positives))
            assert part.rewire(generator(CPU, step), (features, positives)) == moved
            assert (moved.moved > 0) == ("indices" in str(part.row_ranges()))
        check_equal(whole, part)
    features, _ = batch(9)
    for rows in (slice(0, L), slice(10, 60), slice(L - 1, L)):
        want = whole.logits(features, rows)
        assert torch.allclose(part.logits(features, rows), want, atol=1e-5)
    for k in (5, L + 3):
        scores, rows = part.topk(features, k)
        want_scores, want_rows = whole.topk(features, k)
        assert torch.allclose(scores, want_scores, atol=1e-5)
        assert torch.equal(rows, want_rows)
    whole.add_to_bias(0.5)
    part.add_to_bias(0.5)
    check_equal(whole, part)


def main() -> None:
    names = sys.argv[1:]
    processes.call(lambda ranks: [check_layer(ranks, name) for name in names])
