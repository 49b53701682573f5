import pytest
import torch
from torch import nn

from haste.encoders import attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MASK = torch.tensor([[True] * 5, [True, True, False, False, False]], device=DEVICE)[:, None, None]


@pytest.fixture
def on_gpu(monkeypatch):
    """Triton's interpreter stands in for a GPU; takes note of who attends."""
    called = []
    own = attention.short_attention
    monkeypatch.setattr(attention, "can_attend", lambda _: True)
    monkeypatch.setattr(
        attention, "short_attention", lambda *args: called.append("ours") or own(*args)
    )
    return called


def draw(tokens=5):
    torch.manual_seed(0)
    return [torch.randn(2, 3, tokens, 16, device=DEVICE) for _ in range(3)]


def test_both_kernels_agree_by_the_scale_that_is_left_out(on_gpu):
    query, key, value = draw()
    got, weights = attention.attention(nn.Module(), query, key, value, MASK)
    assert on_gpu == ["ours"]
    assert weights is None
    want = torch.nn.functional.scaled_dot_product_attention(query, key, value, MASK)
    assert torch.allclose(got, want.transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "others"),
    [
        (None, {}),
        (MASK.expand(2, 1, 5, 5), {}),
        (MASK, {"position_bias": torch.zeros(1, 3, 5, 5, device=DEVICE)}),
    ],
)
def test_what_our_kernel_does_not_do_is_torch_s(on_gpu, monkeypatch, mask, others):
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *_, **named: (named, None))
    found, _ = attention.attention(nn.Module(), *draw(), mask, dropout=0.5, scaling=2.0, **others)
    assert found == {"dropout": 0.5, "scaling": 2.0, **others}
    assert on_gpu == []


def test_queries_of_another_text_are_torch_s(on_gpu):
    query, key, value = draw()
    got, _ = attention.attention(nn.Module(), query[:, :, :2], key, value, MASK)
    assert got.shape == (2, 2, 3, 16)
    assert on_gpu == []
