"""Checks of the kernels of transformer encoders: attention, residual sums with norms, and GELU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from haste.bench.cases import Results
from haste.bench.judgement import TWO_ROUNDINGS, Judgement, Random, compare, relative_error, share
from haste.kernels.attention import short_attention
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


def attention(tokens: int, p: float, device: torch.device) -> Iterator[Judgement]:
    """`short_attention` on documents of `tokens` tokens."""
    random = Random(device)
    # more of short documents, so that shares have small deviations
    shape = (max(2, 48 // tokens), tokens, HEADS * HEAD_SIZE)
    heads = [random.normal(*shape).unflatten(2, (HEADS, HEAD_SIZE)).transpose(1, 2) for _ in "qkvg"]
    leaves, upstream = dict(zip(("query", "key", "value"), heads, strict=False)), heads[3]
    keys = torch.ones(shape[:2], dtype=torch.bool, device=device)
    # the last document is shorter
    keys[-1, (tokens + 1) // 2 :] = False
    scale, kept = HEAD_SIZE**-0.5, None
    if p:
        factors = _dropout_factors(leaves["query"], leaves["key"], keys, p, scale)
        kept = torch.where(factors > 0.5, 1 / (1 - p), 0.0)
        yield Judgement("factors of dropout", relative_error(factors, kept), TWO_ROUNDINGS)
        attended = keys[:, None, None].expand(kept.shape)
        yield share("share dropped", kept[attended] == 0, p)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _seeded(query, key, value, keys, p, scale)

    def naive(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _attended(query, key, value, keys, scale, kept)

    yield from compare(
        _gradients(attend, leaves, upstream, torch.bfloat16),
        _gradients(naive, leaves, upstream, torch.bfloat16),
        _gradients(naive, leaves, upstream, torch.float64),
    )


def _attended(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, scale: float, kept: Tensor | None
) -> Tensor:
    """By torch, with the factors `kept` of dropout [B, heads, T, T]; all else as in `short_attention`."""
    scores = query @ key.mT * scale
    # finite, for documents without tokens
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~keys[:, None, None], lowest).softmax(3)
    return (weights if kept is None else weights * kept.to(weights.dtype)) @ value


def _seeded(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, p: float, scale: float
) -> Tensor:
    """`short_attention` that drops the same weights at every call."""
    device = query.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(7)
        return short_attention(query, key, value, keys, p, scale)


def _dropout_factors(query: Tensor, key: Tensor, keys: Tensor, p: float, scale: float) -> Tensor:
    """fp64 [B, heads, T, T], from the kernel: with columns of an identity matrix as values its output is
    the weights after dropout."""
    documents, heads, tokens, size = query.shape
    identity = torch.eye(tokens, device=query.device, dtype=query.dtype)
    identity = torch.nn.functional.pad(identity, (0, -tokens % size))
    factors = []
    for columns in identity.split(size, 1):
        value = columns.expand(documents, heads, tokens, size)
        dropped = _seeded(query, key, value, keys, p, scale).double()
        whole = _seeded(query, key, value, keys, 0.0, scale).double()
        factors.append(torch.where(whole > 0, dropped / whole, 0.0))
    return torch.cat(factors, 3)[..., :tokens]


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
    scale, kept = HEAD_SIZE**-0.5, None
    seed = torch.tensor([2**40 + 7], device=device) if p else None
    how = bounds, longest, scale, p, seed, SITE
    if p:
        place = inside.nonzero()[:, 1]
        whole = _packed_weights(qkv, place, bounds, longest, scale, 0.0, None, SITE)
        factors = torch.where(whole > 0, _packed_weights(qkv, place, *how) / whole, 0.0)
        found = torch.where(factors > 0.5, 1 / (1 - p), 0.0)
        yield Judgement("factors of dropout", relative_error(factors, found), TWO_ROUNDINGS)
        yield share("share dropped", found[whole > 0] == 0, p)
        beside = found.new_zeros(*inside.shape, HEADS, longest)
        beside[inside] = found
        kept = beside.transpose(1, 2)

    def naive(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (each.transpose(1, 2) for each in (query, key, value))
        return _attended(q, k, v, inside, scale, kept).transpose(1, 2)

    def answer(dtype: torch.dtype) -> Results:
        leaves = {"query": query, "key": key, "value": value}
        found = _gradients(naive, leaves, upstream, dtype)
        return {name: result[inside] for name, result in found.items()}

    gradient = packed_attention.attend_backward(qkv, *how, upstream[inside])
    names = ("gradient of query", "gradient of key", "gradient of value")
    got = {
        "values": packed_attention.attend(qkv, *how),
        **dict(zip(names, gradient.unbind(1), strict=True)),
    }
    yield from compare(got, answer(torch.bfloat16), answer(torch.float64))


def _packed_weights(qkv: Tensor, place: Tensor, bounds: Tensor, longest: int, *how: Any) -> Tensor:
    """fp64 [tokens, heads, longest], from the kernel: the weights after dropout.

    `place` [tokens]: which of its document's tokens each is.
    """
    identity = torch.eye(longest, device=qkv.device, dtype=qkv.dtype)
    identity = torch.nn.functional.pad(identity, (0, -longest % HEAD_SIZE))
    weights = []
    for columns in identity.split(HEAD_SIZE, 1):
        values = columns[place][:, None].expand(-1, HEADS, -1)
        marked = torch.stack([qkv[:, 0], qkv[:, 1], values], 1)
        weights.append(packed_attention.attend(marked, bounds, longest, *how).double())
    return torch.cat(weights, 2)[..., :longest]


def norm(width: int, p: float, device: torch.device) -> Iterator[Judgement]:
    """A residual sum and its norm over [ROWS, width], and their gradients."""
    random = Random(device)
    x, a, dy, before = (random.normal(ROWS, width) for _ in range(4))
    weight, bias = random.normal(width), random.normal(width)
    seed = torch.tensor([2**40 + 7], device=device) if p else None
    kept = torch.ones_like(x, dtype=torch.float64)
    if p:
        nothing, ones = torch.zeros_like(x), torch.ones_like(x)
        factors, _ = residual.add_norm(nothing, ones, weight, bias, EPS, p, seed, SITE)
        kept = torch.where(factors != 0, 1 / (1 - p), 0.0).double()
        yield Judgement("factors of dropout", relative_error(factors, kept), TWO_ROUNDINGS)
        yield share("share dropped", factors == 0, p)

    def layer_norm(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(z, (width,), weight, bias, EPS)

    def answer(dtype: torch.dtype) -> Results:
        z = x.to(dtype) + a.to(dtype) * kept.to(dtype)
        leaves = {"sum": before, "weight": weight, "bias": bias}
        found = _gradients(layer_norm, leaves, dy, dtype)
        through = found["gradient of sum"] * kept.to(dtype)
        return {
            **found,
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
        found = _gradients(torch.nn.functional.gelu, {"inner": u}, dg, dtype)
        return {**found, "gradient of bias": found["gradient of inner"].sum(0)}

    d_bias = torch.full((width,), torch.nan, device=device, dtype=u.dtype)
    du, values = residual.gelu_backward(u.clone(), dg.clone(), d_bias)
    got = {"values": values, "gradient of inner": du, "gradient of bias": d_bias}
    yield from compare(got, answer(torch.bfloat16), answer(torch.float64))
