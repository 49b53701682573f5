"""One number for all scores of the tail, by the validation split."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.torch import load_file

from haste.data.ragged import Ragged
from haste.errors import ConfigError
from haste.files import read_json
from haste.labels.order import LabelOrder
from haste.layers.base import LayerOptions, LinearRows
from haste.layers.dense import Dense
from haste.layers.head_tail import HeadTail
from haste.metrics.truth import Truth
from haste.training import tail_bias
from haste.training.run import train_and_evaluate
from haste.training.tail_bias import OFFSETS, tune_tail_bias

N_FEATURES, HEAD, TAIL = 3, 6, 10


@dataclass
class StubModel:
    """Features that are given, one row a document."""

    layer: HeadTail
    order: LabelOrder
    features: torch.Tensor

    def features_of(self, tokens):
        for begin in range(0, len(tokens), 2):
            rows = np.arange(begin, min(begin + 2, len(tokens)))
            yield rows, self.features[rows]


def part(rows, bias):
    options = LayerOptions(dtype=torch.float32, momentum=0.0)
    layer = Dense(N_FEATURES, rows, options, torch.Generator().manual_seed(0))
    layer.weight.zero_()
    layer.bias.copy_(torch.tensor(bias))
    return layer


def problem(tail_bias=0.0):
    """Five documents whose right labels are those of the head; labels are in reverse order."""
    head = part(HEAD, [5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    tail = part(TAIL, [tail_bias - i / 10 for i in range(TAIL)])
    whole = slice(0, N_FEATURES)
    layer = HeadTail(head, tail, N_FEATURES, whole, whole)
    labels = np.arange(HEAD + TAIL)[::-1].copy()
    truth = np.zeros((5, HEAD + TAIL))
    truth[:, labels[:5]] = 1
    n = HEAD + TAIL
    facts = Truth(sp.csr_matrix(truth), np.ones(n), np.ones(n), sp.csr_matrix((5, n)), False)
    tokens = Ragged.of([np.array([1], np.int32)] * 5)
    return StubModel(layer, LabelOrder(labels, HEAD, 1), torch.zeros(5, N_FEATURES)), tokens, facts


def test_an_overconfident_tail_is_shifted_below_the_head():
    model, tokens, truth = problem(tail_bias=2.1)
    before = model.layer.tail.bias.clone()
    # the fifth of the head has 1.0: what is above it of the tail must go below, no more
    assert tune_tail_bias(model, tokens, truth) == -1.25
    assert torch.allclose(model.layer.tail.bias, before - 1.25)
    assert model.layer.head.bias.tolist() == [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]


def test_a_tail_that_is_fine_stays_where_it_is():
    model, tokens, truth = problem(tail_bias=0.5)
    assert tune_tail_bias(model, tokens, truth) == 0.0


def test_a_tail_may_be_raised():
    model, tokens, truth = problem(tail_bias=-1.0)
    rows = np.zeros((5, HEAD + TAIL))
    # right: the tail's first five; all reach the top five from 0.6 above the head's best on
    rows[:, model.order.labels[HEAD : HEAD + 5]] = 1
    truth = replace(truth, positives=sp.csr_matrix(rows))
    model.layer.head.bias.fill_(1.0)
    assert tune_tail_bias(model, tokens, truth) == pytest.approx(2.5)


def test_the_best_of_both_parts_are_looked_at():
    model, tokens, _ = problem(tail_bias=9.0)
    ids, scores, tail = tail_bias._best_of_each(model, model.layer, tokens)
    assert ids.shape == (5, 10)
    assert ids[0].tolist() == [*model.order.labels[:5], *model.order.labels[HEAD : HEAD + 5]]
    assert tail[0].tolist() == [False] * 5 + [True] * 5
    assert scores[0, 5] == 9.0


def test_fewer_labels_than_the_metrics_read_will_do():
    head, tail = part(1, [1.0]), part(2, [2.0, 0.0])
    whole = slice(0, N_FEATURES)
    layer = HeadTail(head, tail, N_FEATURES, whole, whole)
    truth = Truth(
        sp.csr_matrix([[1.0, 0, 0]] * 2), np.ones(3), np.ones(3), sp.csr_matrix((2, 3)), False
    )
    model = StubModel(layer, LabelOrder(np.arange(3), 1, 1), torch.zeros(2, N_FEATURES))
    tokens = Ragged.of([np.array([1], np.int32)] * 2)
    # the head's only label is right: the tail goes down to it, and the head is first where they tie
    assert tune_tail_bias(model, tokens, truth) == -1.0
    ids, _, _ = tail_bias._best_of_each(model, layer, tokens)
    assert ids[0].tolist() == [0, -1, -1, -1, -1, 1, 2, -1, -1, -1]


def test_a_layer_without_a_tail_is_refused(tiny):
    model, tokens, truth = problem()
    model.layer = model.layer.head
    assert isinstance(model.layer, LinearRows)
    with pytest.raises(
        ConfigError, match=r"training\.tune_tail_bias: .* layer has none; set layer\.head"
    ):
        tune_tail_bias(model, tokens, truth)
    with pytest.raises(ConfigError, match=r"training\.tune_tail_bias: .* has no head"):
        tiny.config(training={"tune_tail_bias": True})


def test_a_run_is_trained_as_without_and_shifted_once(tiny, stop):
    plain = tiny.config(
        head=8,
        layer={"fan_in": 16, "head_ratio": 0.2, "dropout": 0.2},
        training={"checkpoint_minutes": 0.0},
    )
    shifted = replace(plain, training=replace(plain.training, tune_tail_bias=True))
    configs = {"plain": plain, "shifted": shifted, "stopped": shifted}
    runs = {name: tiny.run_dir(name, config) for name, config in configs.items()}
    train_and_evaluate(plain, runs["plain"])
    train_and_evaluate(shifted, runs["shifted"])
    stop(shifted, runs["stopped"], 7)
    train_and_evaluate(shifted, runs["stopped"])
    want, got, again = (load_file(run.model) for run in runs.values())
    shift = read_json(runs["shifted"].resources)["tail_bias_offset"]
    assert shift in OFFSETS
    assert "tail_bias_offset" not in read_json(runs["plain"].resources)
    (bias,) = (name for name in want if ".tail." in name and name.endswith(".bias"))
    assert torch.allclose(got[bias], want[bias] + shift, atol=1e-6)
    assert [n for n in want if n != bias and not torch.equal(want[n], got[n])] == []
    assert [n for n in got if not torch.equal(got[n], again[n])] == []
