"""Checks of the kernels of transformer encoders: attention, residual sums with norms, and GELU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from haste.bench.cases import Results
from haste.bench.judgement import TWO_ROUNDINGS, Judgement, Random, compare, relative_error, share
from haste.kernels.packed_attention import Documents
from haste.kernels.residual import Dropout
from haste.kernels.triton import packed_attention, residual

TOKENS = (3, 16, 24, 32, 64)
"""tokens per document of the checks of attention"""
HEADS, HEAD_SIZE = 4, 32
WIDTHS = (384, 768)
"""H of the checks between products"""
ROWS = 90
"""tokens of those, no multiple of a tile"""
EPS = 1e-12
"""of the norm, as BERT has it"""
SITE = 5
"""of dropout"""


def _attended(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, kept: Tensor | None
) -> Tensor:
    """By torch, of padded documents [B, heads, T, D], with keys bool [B, T] and the factors `kept` of dropout
    [B, heads, T, T]."""
    scores = query @ key.mT * HEAD_SIZE**-0.5
    # finite, for documents without tokens
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~keys[:, None, None], lowest).softmax(3)
    return (weights if kept is None else weights * kept.to(weights.dtype)) @ value


def _gradients(
    function: Callable[..., Tensor], leaves: Results, upstream: Tensor, dtype: torch.dtype
) -> Results:
    """Output of `function` for `leaves` in `dtype`, and the gradients of the leaves."""
    inputs = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves.values()]
    out = function(*inputs)
    gradients = torch.autograd.grad(out, inputs, upstream.to(out.dtype))
    names = (f"gradient of {name}" for name in leaves)
    return {"values": out.detach(), **dict(zip(names, gradients, strict=True))}


def packed(longest: int, p: float, device: torch.device) -> Iterator[Judgement]:
    """Attention of documents that lie end to end: one without tokens, the longest of `longest`."""
    random = Random(device)
    lengths = torch.tensor([longest, 0, 1, (longest + 1) // 2, longest], device=device)
    inside = torch.arange(longest, device=device) < lengths[:, None]
    shape = (*inside.shape, HEADS, HEAD_SIZE)
    # beside one another for torch [N, heads, T, D], end to end for the kernel [tokens, heads, D]
    drawn = [random.normal(*shape) * inside[..., None, None] for _ in "qkvg"]
    query, key, value, upstream = drawn
    qkv = torch.stack([query[inside], key[inside], value[inside]], 1)
    bounds = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
    documents, dropout, kept = Documents(bounds, longest), Dropout(0.0, None, SITE), None
    if p:
        place = inside.nonzero()[:, 1]
        whole = _packed_weights(qkv, place, documents, dropout)
        dropout = Dropout(p, torch.tensor([2**40 + 7], device=device), SITE)
        left = _packed_weights(qkv, place, documents, dropout)
        factors = torch.where(whole > 0, left / whole, 0.0)
        expected = torch.where(factors > 0.5, 1 / (1 - p), 0.0)
        yield Judgement("factors of dropout", relative_error(factors, expected), TWO_ROUNDINGS)
        yield share("share dropped", expected[whole > 0] == 0, p)
        beside = expected.new_zeros(*inside.shape, HEADS, longest)
        beside[inside] = expected
        kept = beside.transpose(1, 2)

    def naive(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return _attended(q, k, v, inside, kept).transpose(1, 2)

    def answer(dtype: torch.dtype) -> Results:
        leaves = {"query": query, "key": key, "value": value}
        gradients = _gradients(naive, leaves, upstream, dtype)
        return {name: result[inside] for name, result in gradients.items()}

    gradient = packed_attention.attend_backward(qkv, documents, dropout, upstream[inside])
    names = ("gradient of query", "gradient of key", "gradient of value")
    got = {
        "values": packed_attention.attend(qkv, documents, dropout),
        **dict(zip(names, gradient.unbind(1), strict=True)),
    }
    yield from compare(got, answer(torch.bfloat16), answer(torch.float64))


def _packed_weights(qkv: Tensor, place: Tensor, documents: Documents, dropout: Dropout) -> Tensor:
    """fp64 [tokens, heads, longest], from the kernel: the weights after dropout.

    `place` [tokens]: which of its document's tokens each is.
    """
    longest = documents.longest
    identity = torch.eye(longest, device=qkv.device, dtype=qkv.dtype)
    identity = torch.nn.functional.pad(identity, (0, -longest % HEAD_SIZE))
    weights = []
    for columns in identity.split(HEAD_SIZE, 1):
        values = columns[place][:, None].expand(-1, HEADS, -1)
        marked = torch.stack([qkv[:, 0], qkv[:, 1], values], 1)
        weights.append(packed_attention.attend(marked, documents, dropout).double())
    return torch.cat(weights, 2)[..., :longest]


def norm(width: int, p: float, device: torch.device) -> Iterator[Judgement]:
    """A residual sum and its norm over [ROWS, width], and their gradients."""
    random = Random(device)
    x, a, dy, before = (random.normal(ROWS, width) for _ in range(4))
    weight, bias = random.normal(width), random.normal(width)
    seed = torch.tensor([2**40 + 7], device=device) if p else None
    kept = torch.ones_like(x, dtype=torch.float64)
    if p:
        zeros, ones = torch.zeros_like(x), torch.ones_like(x)
        factors, _ = residual.add_norm(zeros, ones, weight, bias, EPS, p, seed, SITE)
        kept = torch.where(factors != 0, 1 / (1 - p), 0.0).double()
        yield Judgement("factors of dropout", relative_error(factors, kept), TWO_ROUNDINGS)
        yield share("share dropped", factors == 0, p)

    def layer_norm(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(z, (width,), weight, bias, EPS)

    def answer(dtype: torch.dtype) -> Results:
        z = x.to(dtype) + a.to(dtype) * kept.to(dtype)
        leaves = {"sum": before, "weight": weight, "bias": bias}
        gradients = _gradients(layer_norm, leaves, dy, dtype)
        through = gradients["gradient of sum"] * kept.to(dtype)
        return {
            **gradients,
            "values": layer_norm(z, weight.to(dtype), bias.to(dtype)),
            "sum": z,
            "gradient of the second summand": through,
            "gradient of its bias": through.sum(0),
        }

    z, y = residual.add_norm(x, a, weight, bias, EPS, p, seed, SITE)
    sums = [torch.full_like(bias, torch.nan) for _ in range(3)]
    dz, da = residual.norm_backward(dy.clone(), before.clone(), weight, EPS, p, seed, SITE, sums)
    got = {
        "values": y,
        "sum": z,
        "gradient of sum": dz,
        "gradient of weight": sums[0],
        "gradient of bias": sums[1],
        "gradient of the second summand": da,
        "gradient of its bias": sums[2],
    }
    yield from compare(got, answer(torch.bfloat16), answer(torch.float64))


def gelu(width: int, device: torch.device) -> Iterator[Judgement]:
    """GELU of [ROWS, width] from its gradient, and the gradients of it and of a bias before it."""
    random = Random(device)
    u, dg = random.normal(ROWS, width), random.normal(ROWS, width)

    def answer(dtype: torch.dtype) -> Results:
        gradients = _gradients(torch.nn.functional.gelu, {"inner": u}, dg, dtype)
        return {**gradients, "gradient of bias": gradients["gradient of inner"].sum(0)}

    d_bias = torch.full((width,), torch.nan, device=device, dtype=u.dtype)
    du, values = residual.gelu_backward(u.clone(), dg.clone(), d_bias)
    got = {"values": values, "gradient of inner": du, "gradient of bias": d_bias}
    yield from compare(got, answer(torch.bfloat16), answer(torch.float64))
