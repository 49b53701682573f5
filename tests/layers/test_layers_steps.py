"""Every layer's step and logits against one dense oracle trained by autograd in fp64."""

import sys

import numpy as np
import pytest
import torch

from haste.errors import KernelError
from haste.kernels.dropout import dropout
from haste.kernels.rounding import mix
from haste.kernels.state import Positives, StepContext
from haste.layers import base, sparse
from haste.layers.base import LayerOptions
from haste.layers.dense import Dense
from haste.layers.head_tail import HeadTail
from haste.layers.sparse import Sparse
from haste.layers.unstructured import Unstructured
from haste.layers.wrappers import FeatureDropout, WithAuxiliary

H, L, F, G, B = 64, 53, 16, 16, 6
OPTIONS = LayerOptions(momentum=0.9, weight_decay=1e-3)
CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def headed(tail, options=OPTIONS):
    head = Dense(H, 20, options, seeded(1))
    return HeadTail(head, tail, H, slice(0, H), slice(0, H))


def head_tail(options=OPTIONS):
    return headed(Sparse(H, L - 20, F, options, seeded(2), group_size=G), options)


def private(options=OPTIONS):
    head = Dense(H // 2, 20, options, seeded(1))
    tail = Sparse(H // 2, L - 20, F, options, seeded(2), group_size=G)
    return HeadTail(head, tail, H, slice(H // 2, H), slice(0, H // 2))


LAYERS = {
    "dense": lambda: Dense(H, L, OPTIONS, seeded()),
    "chunked": lambda: Dense(H, L, OPTIONS, seeded(), chunks=4),
    "unstructured": lambda: Unstructured(H, L, F, OPTIONS, seeded()),
    "fixed": lambda: Sparse(H, L, F, OPTIONS, seeded()),
    "group": lambda: Sparse(H, L, F, OPTIONS, seeded(), group_size=G),
    "block": lambda: Sparse(H, L, F, OPTIONS, seeded(), group_size=G, block_size=8),
    "unstructured_head": lambda: headed(Unstructured(H, L - 20, F, OPTIONS, seeded(2))),
    "fixed_head": lambda: headed(Sparse(H, L - 20, F, OPTIONS, seeded(2))),
    "block_head": lambda: headed(
        Sparse(H, L - 20, F, OPTIONS, seeded(2), group_size=G, block_size=8)
    ),
    "head_tail": head_tail,
    "private": private,
}


def spread(layer):
    """The dense [L, H] weights that a layer stands for, read off its logits, and where it may be
    non-zero."""
    zero = layer.logits(torch.zeros(1, H), slice(0, L))
    weight = (layer.logits(torch.eye(H), slice(0, L)) - zero).t()
    return weight.double(), zero[0].double()


def batch(seed=5):
    random = seeded(seed)
    target = torch.rand(L, B, generator=random) < 0.15
    label, row = target.nonzero(as_tuple=True)
    return torch.randn(B, H, generator=random), Positives(label.int(), row.int()), target


def support(layer):
    parts = [layer] if not isinstance(layer, HeadTail) else [layer.head, layer.tail]
    columns = (
        [slice(0, H)]
        if not isinstance(layer, HeadTail)
        else [layer.head_features, layer.tail_features]
    )
    masks = []
    for part, at in zip(parts, columns, strict=True):
        mask = torch.zeros(part.n_labels, H, dtype=torch.bool)
        if isinstance(part, Unstructured):
            mask[:, at] = part.mask
        elif isinstance(part, Dense):
            mask[:, at] = True
        else:
            units = torch.arange(part.n_labels) // part.group_size
            mask[:, at] = torch.zeros(part.n_labels, part.n_features, dtype=torch.bool).scatter_(
                1, part.index.long()[units], True
            )
        masks.append(mask)
    return torch.cat(masks)


@pytest.mark.parametrize("name", LAYERS)
def test_three_steps_equal_autograd(name):
    layer = LAYERS[name]()
    weight, bias = spread(layer)
    mask = support(layer)
    assert (weight[~mask].abs() < 1e-6).all()
    velocity, bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)
    for step in range(3):
        features, positives, target = batch(step)
        wide = features.double().requires_grad_()
        weight.requires_grad_()
        bias.requires_grad_()
        logits = wide @ weight.t() + bias
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target.t().double(), reduction="sum"
        )
        grads = torch.autograd.grad(loss, [wide, weight, bias])
        result = layer.step(features, positives, StepContext(0.05, 0, step))
        assert torch.allclose(result.loss.double(), loss.detach(), rtol=1e-5)
        assert torch.allclose(result.dx.double(), grads[0], rtol=1e-4, atol=1e-4)
        weight, bias = weight.detach(), bias.detach()
        velocity = 0.9 * velocity + grads[1] * mask + 1e-3 * weight
        bias_velocity = 0.9 * bias_velocity + grads[2] + 1e-3 * bias
        weight = weight - 0.05 * velocity
        bias = bias - 0.05 * bias_velocity
    got_weight, got_bias = spread(layer)
    assert torch.allclose(got_weight, weight, atol=1e-4)
    assert torch.allclose(got_bias, bias, atol=1e-5)


@pytest.mark.parametrize("name", ["dense", "unstructured", "fixed", "group"])
def test_steps_by_adamw_on_squared_hinge_equal_torchs_own(name, monkeypatch):
    settings = {"loss": "squared_hinge", "optimizer": "adamw"}
    options = LayerOptions(momentum=0.8, weight_decay=1e-2, **settings)
    monkeypatch.setitem(globals(), "OPTIONS", options)
    layer = LAYERS[name]()
    mask = support(layer)
    weight, bias = (torch.nn.Parameter(each) for each in spread(layer))
    adamw = torch.optim.AdamW([weight, bias], lr=0.05, betas=(0.8, 0.999), weight_decay=1e-2)
    for step in range(3):
        features, positives, target = batch(step)
        wide = features.double().requires_grad_()
        margins = (wide @ (weight * mask).t() + bias) * (2 * target.t().double() - 1)
        loss = (1 - margins).clamp(min=0).square().sum()
        adamw.zero_grad()
        loss.backward()
        result = layer.step(features, positives, StepContext(0.05, 0, step))
        assert torch.allclose(result.loss.double(), loss.detach(), rtol=1e-5)
        assert torch.allclose(result.dx.double(), wide.grad, rtol=1e-4, atol=1e-4)
        adamw.step()
    got_weight, got_bias = spread(layer)
    assert torch.allclose(got_weight, weight.detach() * mask, atol=1e-4)
    assert torch.allclose(got_bias, bias.detach(), atol=1e-5)


@pytest.mark.parametrize("name", ["unstructured", "fixed", "group"])
def test_a_threshold_prunes_all_that_is_below_it_and_nothing_else(name, monkeypatch):
    options = LayerOptions(optimizer="adamw", threshold=0.02, fraction=0.9)
    monkeypatch.setitem(globals(), "OPTIONS", options)
    layer = LAYERS[name]()
    layer.weight.copy_(layer.weight.sign() * 0.5)
    # of an index, in the group that has label 3
    weak = 0 if name == "group" else 3, int(support(layer)[3].nonzero()[4])
    rows = slice(0, G) if name == "group" else 3
    at = weak[1] if name == "unstructured" else 4
    layer.weight[rows, at] = 0.019
    layer.squared_momentum.fill_(1.0)
    before = support(layer)
    assert layer.rewire(seeded(9)).moved == 1
    gone = (before & ~support(layer)).nonzero()
    assert gone[:, 1].unique().tolist() == [weak[1]]
    assert len(gone) == (G if name == "group" else 1)
    assert (layer.squared_momentum[layer.weight == 0] == 0).any()
    assert layer.rewire(seeded(9)).moved == 1, "what is new is below it, too"
    assert layer.squared_momentum.max() == 1


@pytest.mark.parametrize("name", LAYERS)
def test_logits_of_any_slice_are_columns_of_all(name):
    layer = LAYERS[name]()
    features, _, _ = batch()
    whole = layer.logits(features, slice(0, L))
    for start, stop in ((0, 1), (3, 40), (16, 32), (19, 21), (20, 53), (37, 53)):
        assert torch.allclose(
            layer.logits(features, slice(start, stop)), whole[:, start:stop], atol=1e-5
        )


@pytest.mark.parametrize("name", LAYERS)
def test_topk_finds_the_best_rows(name, monkeypatch):
    monkeypatch.setattr(base, "LABELS_PER_CHUNK", 7)
    layer = LAYERS[name]()
    features, _, _ = batch()
    scores, rows = layer.topk(features, 5)
    want = layer.logits(features, slice(0, L)).topk(5)
    assert torch.allclose(scores, want.values, atol=1e-5)
    assert torch.equal(rows, want.indices)


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_and_bytes(name):
    layer = LAYERS[name]()
    weights = int(support(layer).sum())
    assert layer.trained_parameters() == weights + L
    assert layer.layer_bytes() >= 2 * 4 * (weights + L)


def test_bytes_by_hand():
    layer = Sparse(H, L, F, LayerOptions(dtype=torch.bfloat16), seeded(), group_size=G)
    assert layer.layer_bytes() == L * F * 2 + L * 2 + 4 * F * 4


@pytest.mark.parametrize(
    "name", ["unstructured", "fixed", "group", "block", "head_tail", "private"]
)
@pytest.mark.parametrize("growth", ["random", "gradient"])
@pytest.mark.parametrize("scope", ["global", "group"])
def test_rewiring_moves_the_weakest_and_clears_them(name, growth, scope):
    layer = LAYERS[name]()
    for part in layer.modules():
        if hasattr(part, "options"):
            part.options = LayerOptions(momentum=0.9, growth=growth, scope=scope, fraction=0.5)
    features, positives, _ = batch()
    layer.step(features, positives, StepContext(0.1, 0, 0))
    before, weight = support(layer), spread(layer)[0]
    stats = layer.rewire(seeded(9), (features, positives))
    after, now = support(layer), spread(layer)[0]
    assert stats.moved > 0
    assert stats.moved == pytest.approx(0.5 * stats.indices, rel=0.1)
    assert after.sum() == before.sum()
    kept = before & after
    assert torch.allclose(now[kept], weight[kept], atol=1e-6)
    assert (now[after & ~before].abs() < 1e-6).all()
    if scope == "global" and name in ("unstructured", "fixed"):
        lost = weight[before & ~after].abs()
        assert lost.max() <= weight[kept].abs().min() + 1e-6
    for part in layer.modules():
        if getattr(part, "momentum", None) is None or (
            isinstance(part, Dense) and not isinstance(part, Unstructured)
        ):
            continue
        assert (part.momentum[part.weight == 0] == 0).all()


def test_momentum_of_the_dead_is_kept_on_request():
    options = LayerOptions(momentum=0.9, fraction=0.25, reset_momentum=False)
    layer = Sparse(H, L, F, options, seeded(), group_size=G)
    features, positives, _ = batch()
    layer.step(features, positives, StepContext(0.1, 0, 0))
    momentum = layer.momentum.clone()
    layer.rewire(seeded(9))
    assert torch.equal(layer.momentum, momentum)
    assert (layer.weight == 0).any()


def test_index_scores_by_hand():
    layer = Sparse(16, 18, 16, LayerOptions(), seeded(), group_size=16)
    layer.weight.zero_()
    layer.weight[0, 3] = -16.0
    layer.weight[17, 5] = 4.0
    scores = torch.cat(list(layer._scores()))
    assert scores[0, 3] == 1.0
    assert scores[1, 5] == 2.0  # the last group has two labels
    assert scores.sum() == 3.0


def test_gradient_growth_takes_the_largest_gradient():
    layer = Sparse(
        32, 16, 16, LayerOptions(growth="gradient", fraction=1 / 16), seeded(), group_size=16
    )
    layer.weight.fill_(1.0)
    layer.weight[:, 4] = 0.01
    free = sorted(set(range(32)) - set(layer.index[0].tolist()))
    features = torch.zeros(2, 32)
    features[:, free[7]] = 3.0
    features[:, free[2]] = 1.0
    label = torch.arange(16, dtype=torch.int32).repeat_interleave(2)
    positives = Positives(label, torch.tensor([0, 1] * 16, dtype=torch.int32))
    layer.rewire(seeded(), (features, positives))
    assert layer.index[0, 4] == free[7]


def test_gradient_growth_of_single_weights_takes_the_largest_gradients():
    options = LayerOptions(growth="gradient", fraction=2 / (20 * 16), momentum=0.9)
    layer = Unstructured(32, 20, 16, options, seeded())
    layer.weight.copy_(layer.mask)
    weakest = [[row, int(layer.mask[row].nonzero()[5])] for row in (3, 11)]
    for value, (row, column) in zip((0.01, -0.02), weakest, strict=True):
        layer.weight[row, column] = value
    shared = int((~layer.mask[6] & ~layer.mask[9]).nonzero()[0])
    before = layer.mask.clone()
    # documents without any other feature: |dz h| is largest for the two labels that are wrong there
    features = torch.zeros(2, 32)
    features[0, shared] = 3.0
    positives = Positives(
        torch.tensor([6, 9], dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    )
    layer.bias.fill_(-4.0)
    stats = layer.rewire(seeded(), (features, positives))
    assert stats.moved == 2
    assert (before & ~layer.mask).nonzero().tolist() == weakest
    assert (layer.mask & ~before).nonzero().tolist() == [[6, shared], [9, shared]]
    assert (layer.weight[layer.mask & ~before] == 0).all()


def test_initialisation_follows_the_method():
    layer = Sparse(64, 4000, 16, LayerOptions(), seeded(), group_size=16)
    assert layer.weight.abs().max() <= 0.25
    assert layer.weight.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.02)
    assert (layer.bias == 0).all()
    dense = Dense(64, 4000, LayerOptions(), seeded())
    assert dense.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_no_momentum_no_buffers():
    layer = Sparse(H, L, F, LayerOptions(), seeded(), group_size=G)
    assert layer.momentum is None
    assert layer.bias_momentum is None


def test_dropout_is_a_function_of_seed_and_step():
    features, positives, _ = batch()

    def grad(seed, step, part=0):
        layer = FeatureDropout(Dense(H, L, LayerOptions(), seeded()), 0.5, part)
        return layer.step(features, positives, StepContext(0.0, seed, step)).dx

    first = grad(1, 2)
    assert torch.equal(first, grad(1, 2))
    for other in (grad(1, 3), grad(2, 2), grad(1, 2, part=1)):
        assert not torch.equal(first == 0, other == 0)
    assert 0.3 < (first == 0).float().mean() < 0.7


def test_dropout_scales_what_is_kept_and_leaves_prediction_alone():
    inner = Dense(H, L, LayerOptions(), seeded())
    layer = FeatureDropout(inner, 0.25, 0)
    features, positives, _ = batch()
    assert torch.equal(layer.logits(features, slice(0, L)), inner.logits(features, slice(0, L)))
    ones = torch.ones_like(features)
    factor = dropout(ones, 0.25, seed=mix(0, 2, 0), step=0, backend="torch")
    want = Dense(H, L, LayerOptions(), seeded()).step(
        features * factor, positives, StepContext(0.0, 0, 0)
    )
    got = layer.step(features, positives, StepContext(0.0, 0, 0))
    assert torch.allclose(got.loss, want.loss)
    assert torch.allclose(got.dx, want.dx * factor)


def test_head_and_tail_must_fit_their_slices():
    head = Dense(H, 20, OPTIONS, seeded())
    tail = Sparse(H, 33, F, OPTIONS, seeded(), group_size=G)
    with pytest.raises(KernelError, match="tail: reads 64 features, but its slice has 16"):
        HeadTail(head, tail, H, slice(0, H), slice(0, 16))


def test_fan_in_above_the_features_is_refused():
    with pytest.raises(KernelError, match="fan-in: 64 indices do not fit in 32 choices"):
        Sparse(32, 10, 64, OPTIONS, seeded(), group_size=16)
    with pytest.raises(
        KernelError, match=r"block_size: 8 must divide both fan_in \(16\) and the features \(36\)"
    ):
        Sparse(36, 10, 16, OPTIONS, seeded(), group_size=16, block_size=8)


def test_auxiliary_loss_adds_its_gradient_until_it_fades():
    features, positives, target = batch()
    clusters = torch.arange(L, dtype=torch.int32) // 10
    plain = Dense(H, L, LayerOptions(), seeded())
    extra = Dense(H, 6, LayerOptions(), seeded(3))
    layer = WithAuxiliary(
        Dense(H, L, LayerOptions(), seeded()),
        extra,
        clusters,
        lambda step: 0.5 if step == 0 else 0.0,
    )
    oracle = Dense(H, 6, LayerOptions(), seeded(3))
    by_cluster = torch.stack([target[clusters == k].any(0) for k in range(6)])
    label, row = by_cluster.nonzero(as_tuple=True)
    own = oracle.step(features, Positives(label.int(), row.int()), StepContext(0.0, 0, 0))
    main = plain.step(features, positives, StepContext(0.0, 0, 0))
    got = layer.step(features, positives, StepContext(0.0, 0, 0))
    assert torch.equal(got.loss, main.loss)
    assert torch.allclose(got.dx, main.dx + 0.5 * own.dx)
    later = layer.step(features, positives, StepContext(0.0, 0, 1))
    assert torch.equal(later.dx, main.dx)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tensors of the interpreter are on the CPU")
@pytest.mark.parametrize("count", [6, 300])
def test_the_auxiliary_gradient_is_the_same_where_nothing_may_wait_for_the_gpu(count):
    # the triton backend does not drop repeats and labels that are not there; 300 clusters take several tiles
    features, positives, _ = batch()
    clusters = (torch.arange(L, dtype=torch.int32).flip(0) // 10) * (count // 6)
    clusters[-1] = count - 1

    def gradient(backend, positives, step):
        options = LayerOptions(backend=backend)
        main, extra = Dense(H, L, options, seeded()), Dense(H, count, options, seeded(3))
        layer = WithAuxiliary(main, extra, clusters, lambda step: 0.5 + 0 * step)
        lr = 0.0 if backend == "torch" else torch.tensor(0.0)
        result = layer.step(features, positives, StepContext(lr, 0, step))
        return result.dx

    every = torch.arange(len(features), dtype=torch.int32)
    padded = Positives(
        torch.cat([positives.label_row, torch.full_like(every, L)]),
        torch.cat([positives.doc, every]),
    )
    got = gradient("triton", padded, torch.tensor(0, dtype=torch.int32))
    want = gradient("torch", positives, 0)
    assert torch.allclose(got, want, atol=1e-4)
    # batches are padded where the host steps the layer, too
    assert torch.equal(gradient("torch", padded, 0), want)


def test_what_can_be_captured():
    numbers_in_memory = LayerOptions(backend="triton")
    for options, want in ((OPTIONS, False), (numbers_in_memory, True)):
        layer = FeatureDropout(head_tail(options), 0.5, 0)
        assert layer.capturable is want
    half = head_tail(numbers_in_memory)
    half.head = Dense(H, 20, OPTIONS, seeded())
    assert not half.capturable
    extra = Dense(H, 6, OPTIONS, seeded())
    clusters = torch.zeros(L, dtype=torch.int32)
    assert not WithAuxiliary(head_tail(numbers_in_memory), extra, clusters, float).capturable


def test_stochastic_rounding_depends_on_seed_and_step_alone():
    features, positives, _ = batch()

    def weights(seed, step):
        layer = Dense(H, L, LayerOptions(dtype=torch.bfloat16), seeded())
        layer.step(features, positives, StepContext(0.01, seed, step))
        return layer.weight.float().numpy()

    assert np.array_equal(weights(0, 1), weights(0, 1))
    assert not np.array_equal(weights(0, 1), weights(0, 2))
    assert not np.array_equal(weights(0, 1), weights(1, 1))


@pytest.mark.parametrize("name", ["fixed", "group", "block"])
@pytest.mark.parametrize(("limit", "value"), [("BLOCK", 1), ("KEPT", 0)])
def test_rewiring_in_blocks_prunes_what_rewiring_at_once_prunes(name, limit, value, monkeypatch):
    def rewired():
        layer = LAYERS[name]()
        layer.rewire(seeded(9))
        return layer.weight == 0

    whole = rewired()
    monkeypatch.setattr(sparse, limit, value)
    assert torch.equal(rewired(), whole)
    assert 0 < whole.float().mean() < 1


def test_repeated_indices_are_trained_in_a_fixed_order_by_the_torch_backend():
    options = LayerOptions(with_replacement=True, deterministic=True)
    layer = Sparse(H, L, F, options, seeded(), group_size=G)
    features, positives, _ = batch()
    assert layer.step(features, positives, StepContext(0.1, 0, 0)).loss.isfinite()


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_is_not_drawn_has_the_tensors_of_one_that_is(monkeypatch, name):
    drawn = LAYERS[name]().state_dict()
    monkeypatch.setattr(sys.modules[__name__], "seeded", lambda _=0: None)
    empty = LAYERS[name]().state_dict()
    assert {each.device.type for each in empty.values()} == {"meta"}
    assert {key: (each.shape, each.dtype) for key, each in empty.items()} == {
        key: (each.shape, each.dtype) for key, each in drawn.items()
    }


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_pruned_weights_stay_pruned_where_their_momenta_are_kept(optimizer):
    options = LayerOptions(momentum=0.9, optimizer=optimizer, reset_momentum=False, fraction=0.3)
    layer = Unstructured(H, L, F, options, seeded())
    features, positives, _ = batch()
    for step in range(4):
        layer.step(features, positives, StepContext(0.05, 0, step))
        if step == 1:
            assert layer.rewire(seeded(1)).moved > 0
    assert not layer.weight[~layer.mask].any()


@pytest.mark.parametrize(("n_features", "fan_in"), [(32, 32), (36, 32), (64, 32)])
def test_an_unstructured_layer_keeps_its_number_of_weights(n_features, fan_in):
    options = LayerOptions(fraction=0.2)
    layer = Unstructured(n_features, L, fan_in, options, seeded())
    for seed in range(3):
        before = layer.mask.clone()
        stats = layer.rewire(seeded(seed))
        assert int(layer.mask.sum()) == L * fan_in
        assert stats.moved == int((layer.mask & ~before).sum())
