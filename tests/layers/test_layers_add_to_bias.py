import torch

from haste.layers.base import LayerOptions
from haste.layers.dense import Dense
from haste.layers.head_tail import HeadTail
from haste.layers.wrappers import FeatureDropout


def dense(rows, dtype=torch.float32):
    return Dense(4, rows, LayerOptions(dtype=dtype), torch.Generator().manual_seed(1))


def test_logits_move_by_what_is_asked():
    torch.manual_seed(0)
    features = torch.randn(3, 4)
    whole = slice(0, 4)
    head, tail = dense(5), dense(7)
    layer = HeadTail(head, tail, 4, whole, whole)
    everything = slice(0, 12)
    before = layer.logits(features, everything)
    tail.add_to_bias(-1.5)
    moved = layer.logits(features, everything) - before
    assert torch.allclose(moved[:, :5], torch.zeros(3, 5))
    assert torch.allclose(moved[:, 5:], torch.full((3, 7), -1.5), atol=1e-6)
    layer.add_to_bias(2.0)
    assert torch.allclose(layer.logits(features, everything) - before, moved + 2.0, atol=1e-6)


def test_biases_stay_in_their_format():
    layer = dense(3, torch.bfloat16)
    layer.bias.fill_(-8.0)
    layer.add_to_bias(0.01)
    assert layer.bias.dtype == torch.bfloat16
    # the nearest number that bf16 has
    assert layer.bias.tolist() == [-8.0] * 3


def test_wrapped_layers_pass_it_on():
    inner = dense(3)
    FeatureDropout(inner, 0.5, part=0).add_to_bias(1.0)
    assert inner.bias.tolist() == [1.0] * 3
