"""Label trees: shortlists by hand, steps against autograd, predictions against scores of all labels."""

import pytest
import torch

from haste.errors import KernelError
from haste.kernels import torch_backend
from haste.kernels.state import Positives, StepContext
from haste.layers.base import LayerOptions
from haste.layers.dense import Dense
from haste.layers.label_tree import LabelTree, label_tree

H, G, B = 12, 4, 5
OPTIONS = LayerOptions(momentum=0.9, weight_decay=0.1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tree(labels=27, levels=1, shortlist=2, options=OPTIONS, cluster_size=G):
    return label_tree(
        H, labels, options, seeded(), cluster_size=cluster_size, shortlist=shortlist, levels=levels
    )


def batch(labels=27, seed=1, share=0.1):
    random = seeded(seed)
    target = torch.rand(labels, B, generator=random) < share
    label, doc = target.nonzero(as_tuple=True)
    return torch.randn(B, H, generator=random), Positives(label.int(), doc.int()), target


def by_hand():
    """Six labels in clusters (0, 1), (2, 3) and (4, 5), each with a feature of its own, and a shortlist of one."""
    options = LayerOptions(momentum=0.9, weight_decay=0.5)
    layer = label_tree(9, 6, options, seeded(), cluster_size=2, shortlist=1)
    layer.labels.weight.copy_(torch.eye(9)[:6])
    layer.clusters.weight.copy_(torch.eye(9)[6:])
    return layer


def test_a_shortlist_by_hand():
    layer = by_hand()
    # the cluster (2, 3) is best, so the better label 5 is not looked at
    features = torch.tensor([[0.0, 0, 1, 2, 0, 9, 0, 3, 1]])
    scores, rows = layer.topk(features, 3)
    assert rows.tolist() == [[3, 2, -1]]
    own, above = torch.sigmoid(torch.tensor([[2.0, 1.0], [3.0, 3.0]]))
    assert torch.allclose(torch.sigmoid(scores[0, :2]), own * above)
    assert scores[0, 2] == -torch.inf
    assert torch.equal(
        layer.logits(features, slice(0, 6)).isfinite(),
        torch.tensor([[False, False, True, True, False, False]]),
    )


def test_labels_on_no_shortlist_rest_and_those_beside_a_positive_do_not():
    layer = by_hand()
    before = layer.labels.weight.clone()
    features = torch.tensor([[0.0, 0, 1, 2, 0, 9, 0, 3, 1]])
    pair = torch.tensor([0], dtype=torch.int32)
    layer.step(features, Positives(pair, pair), StepContext(0.1, 0, 0))
    moved = (layer.labels.weight != before).any(dim=1)
    # of the best cluster, and of the positive's
    assert moved.tolist() == [True, True, True, True, False, False]


def shortlists(layer, features, target):
    """bool [L, B]: which labels a step scores, found document by document."""
    clusters = torch.arange(layer.n_labels) // layer.cluster_size
    best = layer.clusters.logits(features, slice(0, layer.clusters.n_labels)).topk(layer.shortlist)
    found = torch.zeros_like(target)
    for doc in range(len(features)):
        own = {*best.indices[doc].tolist(), *clusters[target[:, doc]].tolist()}
        found[:, doc] = torch.tensor([int(cluster) in own for cluster in clusters])
    return found


def dense_of(layer):
    """Its levels as fp64 (weights, biases), from the labels up."""
    parts = []
    while isinstance(layer, LabelTree):
        parts.append(layer.labels)
        layer = layer.clusters
    return [(part.weight.double(), part.bias.double()) for part in (*parts, layer)]


def levels_of(layer):
    return [layer, *levels_of(layer.clusters)] if isinstance(layer, LabelTree) else []


@pytest.mark.parametrize("tile_bytes", [1, 1 << 26])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("labels", [27, 32])
def test_three_steps_equal_autograd(labels, levels, tile_bytes, monkeypatch):
    monkeypatch.setattr(torch_backend, "TILE_BYTES", tile_bytes)
    layer = tree(labels, levels)
    parameters = [torch.nn.Parameter(each.clone()) for part in dense_of(layer) for each in part]
    velocities = [torch.zeros_like(each) for each in parameters]
    for step in range(3):
        features, positives, target = batch(labels, step)
        wide = features.double().requires_grad_()
        loss, touched, want = 0.0, [], target
        for at, level in enumerate([*levels_of(layer), None]):
            # the top level is scored whole
            listed = torch.ones_like(want) if level is None else shortlists(level, features, want)
            weight, bias = parameters[2 * at : 2 * at + 2]
            logits = (wide @ weight.t() + bias).t()
            loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(
                logits[listed], want[listed].double(), reduction="sum"
            )
            assert listed[want].all(), "every positive is on the shortlist"
            used = listed.any(dim=1)
            if level is not None:
                # a cluster's labels are trained together
                groups = torch.arange(len(want)) // G
                used = torch.stack([used[groups == group].any() for group in groups])
                want = torch.stack([want[groups == group].any(0) for group in groups.unique()])
            touched += [used, used]
        gradients = torch.autograd.grad(loss, [wide, *parameters])
        result = layer.step(features, positives, StepContext(0.05, 0, step))
        assert torch.allclose(result.loss.double(), loss.detach(), rtol=1e-5)
        assert torch.allclose(result.dx.double(), gradients[0], rtol=1e-4, atol=1e-5)
        for value, velocity, gradient, rows in zip(
            parameters, velocities, gradients[1:], touched, strict=True
        ):
            stepped = 0.9 * velocity + gradient + 0.1 * value.data
            velocity[rows] = stepped[rows]
            value.data[rows] -= 0.05 * velocity[rows]
    got = [each for part in dense_of(layer) for each in part]
    for have, value in zip(got, parameters, strict=True):
        assert torch.allclose(have, value.data, atol=1e-5)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize(("shortlist", "k"), [(1, 3), (3, 6), (100, 5), (2, 40)])
def test_predictions_are_the_best_of_the_products_of_probabilities(levels, shortlist, k):
    layer = tree(61, levels, shortlist)
    features, _, _ = batch(61)
    parts = dense_of(layer)
    # from the top level down: the probability of each node, 0 where no path of best ones leads to it
    probability = torch.sigmoid(features.double() @ parts[-1][0].t() + parts[-1][1])
    for weight, bias in parts[-2::-1]:
        best = probability.topk(min(shortlist, probability.shape[1])).indices
        kept = torch.zeros_like(probability).scatter(1, best, probability.gather(1, best))
        above = kept.repeat_interleave(G, dim=1)[:, : len(weight)]
        probability = above * torch.sigmoid(features.double() @ weight.t() + bias)
    scores, rows = layer.topk(features, k)
    want = probability.topk(min(k, 61))
    found = want.values > 0
    width = found.shape[1]
    assert torch.allclose(torch.sigmoid(scores[:, :width].double())[found], want.values[found])
    assert torch.equal(rows[:, :width][found], want.indices[found])
    assert (rows[:, :width][~found] == -1).all()
    assert (rows[:, width:] == -1).all()
    logits = layer.logits(features, slice(0, 61))
    assert torch.allclose(torch.sigmoid(logits.double()), probability)
    assert torch.equal(layer.logits(features, slice(5, 30)), logits[:, 5:30])


def test_scores_of_large_logits_keep_their_order():
    layer = by_hand()
    features = torch.zeros(1, 9)
    features[0, 2], features[0, 3], features[0, 7] = 40.0, 41.0, 80.0
    scores, rows = layer.topk(features, 2)
    assert rows.tolist() == [[3, 2]]
    assert torch.allclose(scores, torch.tensor([[41.0, 40.0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_weights_learn_and_repeat_themselves(dtype):
    def trained():
        layer = tree(27, 2, options=LayerOptions(dtype=dtype, momentum=0.9))
        features, positives, _ = batch(share=0.05)
        losses = [
            float(layer.step(features, positives, StepContext(0.1, 3, step)).loss)
            for step in range(30)
        ]
        return layer, losses

    layer, losses = trained()
    again, _ = trained()
    assert losses[-1] < 0.2 * losses[0]
    for name, value in layer.state_dict().items():
        assert torch.equal(value.float(), again.state_dict()[name].float()), name


def test_no_two_rows_are_rounded_by_the_same_random_numbers(monkeypatch):
    monkeypatch.setattr(torch_backend, "TILE_BYTES", 1)
    layer = tree(6, shortlist=6, cluster_size=1, options=LayerOptions(dtype=torch.bfloat16))
    for part in (layer.labels, layer.clusters):
        part.weight.fill_(0.5)
    features, _, _ = batch()
    none = torch.empty(0, dtype=torch.int32)
    layer.step(features, Positives(none, none), StepContext(0.01, 0, 0))
    # without rounding these twelve would be equal
    rows = torch.cat([layer.labels.weight, layer.clusters.weight])
    assert len(rows.unique(dim=0)) == 12


def test_another_loss_and_optimiser():
    layer = tree(options=LayerOptions(loss="squared_hinge", optimizer="adamw"))
    features, positives, _ = batch(share=0.05)
    losses = [
        float(layer.step(features, positives, StepContext(0.02, 0, step)).loss)
        for step in range(40)
    ]
    assert losses[-1] < 0.1 * losses[0]


def test_pairs_of_other_rows_are_ignored():
    features, positives, _ = batch()
    more = Positives(
        torch.cat([torch.tensor([-3], dtype=torch.int32), positives.label_row, torch.tensor([27], dtype=torch.int32)]),
        torch.cat([torch.tensor([0], dtype=torch.int32), positives.doc, torch.tensor([1], dtype=torch.int32)]),
    )  # fmt: skip
    results = [tree().step(features, each, StepContext(0.1, 0, 0)) for each in (positives, more)]
    assert torch.equal(results[0].loss, results[1].loss)
    assert torch.equal(results[0].dx, results[1].dx)


def test_size_and_what_it_cannot_do():
    layer = tree(27, 2)
    # labels, clusters, clusters of clusters
    rows = 27 + 7 + 2
    assert layer.trained_parameters() == rows * (H + 1)
    assert layer.layer_bytes() == 2 * 4 * rows * (H + 1)
    assert not tree(options=LayerOptions(backend="triton")).capturable
    with pytest.raises(KernelError, match="add_to_bias"):
        layer.add_to_bias(1.0)
    with pytest.raises(KernelError, match=r"clusters: a layer of 6 rows; .* have 7"):
        LabelTree(Dense(H, 27, OPTIONS, seeded()), Dense(H, 6, OPTIONS, seeded()), G, 2)
    with pytest.raises(KernelError, match="shortlist: 0 is not allowed"):
        tree(shortlist=0)
    with pytest.raises(KernelError, match="features: shape"):
        layer.topk(torch.zeros(2, H + 1), 3)
