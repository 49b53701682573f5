import pytest
import torch
from kernel_problems import DEVICE

from haste.errors import KernelError
from haste.kernels.attention import can_attend, short_attention

# B, heads, T, D
SHAPES = [(3, 2, 16, 16), (2, 3, 5, 32), (2, 1, 24, 64), (1, 2, 33, 32), (1, 1, 64, 16)]


def problem(shape, dtype=torch.float32, seed=0):
    """Query, key, value, gradient and keys, the documents of different lengths; laid out as a model's."""
    random = torch.Generator().manual_seed(seed)
    documents, heads, tokens, size = shape

    def draw():
        values = torch.randn(documents, tokens, heads * size, generator=random).to(DEVICE, dtype)
        return values.view(documents, tokens, heads, size).transpose(1, 2)

    lengths = torch.randint(1, tokens + 1, (documents,), generator=random)
    lengths[0] = tokens
    keys = torch.arange(tokens) < lengths[:, None]
    return draw(), draw(), draw(), draw(), keys.to(DEVICE)


def reference(query, key, value, keys, scale, kept=None):
    """In fp64; `kept` are the factors of dropout [B, heads, T, T]."""
    query, key, value = query.double(), key.double(), value.double()
    scores = (query @ key.transpose(2, 3) * scale).masked_fill(~keys[:, None, None], -torch.inf)
    weights = scores.softmax(3)
    return (weights if kept is None else weights * kept) @ value


def with_gradients(function, query, key, value, gradient):
    own = [each.detach().clone().requires_grad_() for each in (query, key, value)]
    out = function(*own)
    return [out, *torch.autograd.grad(out, own, gradient.to(out.dtype))]


def far(got, want):
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_softmax(shape):
    query, key, value, gradient, keys = problem(shape)
    got = with_gradients(
        lambda q, k, v: short_attention(q, k, v, keys, scale=0.3), query, key, value, gradient
    )
    want = with_gradients(
        lambda q, k, v: reference(q, k, v, keys, 0.3), query, key, value, gradient
    )
    for mine, other in zip(got, want, strict=True):
        assert mine.shape == other.shape
        assert far(mine, other) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_formats_are_as_good_as_torch_s(dtype):
    query, key, value, gradient, keys = problem((2, 2, 24, 32), dtype)
    scale = 32**-0.5
    exact = with_gradients(
        lambda q, k, v: reference(q, k, v, keys, scale), query, key, value, gradient
    )
    torchs = with_gradients(
        lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(
            q, k, v, keys[:, None, None], scale=scale
        ),
        query,
        key,
        value,
        gradient,
    )
    got = with_gradients(
        lambda q, k, v: short_attention(q, k, v, keys, scale=scale), query, key, value, gradient
    )
    for mine, other, want in zip(got, torchs, exact, strict=True):
        assert mine.dtype == dtype
        assert far(mine, want) <= 1.5 * far(other, want)


def test_a_document_without_tokens_gets_zeros():
    query, key, value, gradient, keys = problem((2, 2, 16, 16))
    keys[1] = False
    for each in with_gradients(
        lambda q, k, v: short_attention(q, k, v, keys), query, key, value, gradient
    ):
        assert torch.equal(each[1], torch.zeros_like(each[1]))
        assert each[0].abs().sum() > 0


def dropout_factors(query, key, keys, p, scale):
    """Read from the kernel: values that are columns of an identity matrix leave its weights, dropped and
    scaled."""
    documents, heads, tokens, size = query.shape
    kept = []
    for begin in range(0, tokens, size):
        columns = torch.eye(tokens, device=DEVICE, dtype=query.dtype)[:, begin : begin + size]
        columns = torch.nn.functional.pad(columns, (0, size - columns.shape[1]))
        columns = columns.expand(documents, heads, tokens, size)
        torch.manual_seed(7)
        dropped = short_attention(query, key, columns, keys, p, scale)
        whole = short_attention(query, key, columns, keys, 0.0, scale)
        ratio = torch.where(whole > 0, dropped.double() / whole.double(), 0.0)
        kept.append(ratio[..., : tokens - begin])
    return torch.cat(kept, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [3, 16, 24, 32, 48])
def test_dropout_zeroes_a_share_and_its_gradients_follow(tokens, dtype):
    query, key, value, gradient, keys = problem((4, 4, tokens, 32), dtype)
    p, scale = 0.25, 0.2
    found = dropout_factors(query, key, keys, p, scale)
    kept = torch.where(found > 0.5, 1 / (1 - p), 0.0).double()
    assert torch.allclose(found, kept, atol=1e-5 if dtype == torch.float32 else 0.02)
    there = keys[:, None, None].expand(kept.shape)
    share = (kept[there] == 0).float().mean()
    # five standard deviations of a binomial share
    assert abs(share - p) < 5 * (p * (1 - p) / int(there.sum())) ** 0.5
    # heads and documents drop different weights
    assert not torch.equal(kept[0, 0], kept[0, 1])

    def attend(q, k, v):
        torch.manual_seed(7)
        return short_attention(q, k, v, keys, p, scale)

    got = with_gradients(attend, query, key, value, gradient)
    want = with_gradients(
        lambda q, k, v: reference(q, k, v, keys, scale, kept), query, key, value, gradient
    )
    for mine, other in zip(got, want, strict=True):
        assert far(mine, other) < (1e-5 if dtype == torch.float32 else 5e-3)


def test_every_call_drops_other_weights():
    query, key, value, _, keys = problem((1, 2, 16, 16))
    torch.manual_seed(0)
    first, second = (short_attention(query, key, value, keys, 0.5) for _ in range(2))
    torch.manual_seed(0)
    assert not torch.equal(first, second)
    assert torch.equal(first, short_attention(query, key, value, keys, 0.5))


def test_the_result_lies_as_the_next_layer_reads_it():
    query, key, value, _, keys = problem((2, 3, 16, 16))
    assert short_attention(query, key, value, keys).transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("shape", [(1, 1, 65, 16), (1, 1, 16, 24)])
def test_other_shapes_are_refused(shape):
    query, key, value, _, keys = problem(shape)
    assert not can_attend(query)
    with pytest.raises(KernelError, match=r"at most 64 tokens and heads of 16, 32, 64, 128\. Use"):
        short_attention(query, key, value, keys)


def test_keys_must_fit():
    query, key, value, _, keys = problem((2, 1, 16, 16))
    with pytest.raises(KernelError, match=r"keys are .*\[1, 16\]; give three of"):
        short_attention(query, key, value, keys[:1])


def test_shares_and_formats_that_have_no_kernel_are_refused():
    query, key, value, _, keys = problem((2, 1, 16, 16))
    for p in (1.0, -0.5, float("nan")):
        with pytest.raises(KernelError, match=f"p: {p} is not allowed"):
            short_attention(query, key, value, keys, p)
    with pytest.raises(KernelError, match=r"query: dtype: .*float64 is not allowed"):
        short_attention(*(each.double() for each in (query, key, value)), keys)
    with pytest.raises(KernelError, match=r"key: dtype: .*bfloat16 is not allowed; use one of"):
        short_attention(query, key.bfloat16(), value, keys)
