"""What a transformer's layer does between its products, in Triton: one pass over activations each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from haste.kernels.triton.common import PHILOX_ROUNDS, cast, num_sms, random_halves

ROWS = 4
"""tokens of a tile whose rows are normalised"""
NORM_PROGRAMS, NORM_TOKENS = 4, 8
"""programs a multiprocessor of the norm's gradient at most, and tokens of each at least"""
GELU_ROWS, GELU_COLUMNS, GELU_TOKENS = 8, 256, 64
"""a tile, and tokens of a program"""
SUMS_ROWS, SUMS_COLUMNS = 128, 16


@triton.jit
def kept_factor(
    seed, site, rows, threshold, boost,
    DROPOUT: tl.constexpr, R: tl.constexpr, C: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The factors of dropout fp32 [R, C], 0 or `boost`: a function of the seed in memory, `site` and place."""
    if DROPOUT:
        noise = random_halves(tl.load(seed), site, rows.to(tl.int64), 0, R, C, ROUNDS) & 0xFFFF
        return tl.where(noise >= threshold, boost, 0.0)
    return tl.full([R, C], 1.0, tl.float32)


@triton.jit
def _statistics(z, inside, width, eps):
    """Deviations of rows from their mean, and 1 / standard deviation."""
    mean = tl.sum(z, 1) / width
    centred = tl.where(inside, z - mean[:, None], 0.0)
    return centred, 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / width + eps)


@triton.jit(do_not_specialize=["site", "threshold", "tokens"])
def _add_norm(
    x_ptr, a_ptr, gamma_ptr, beta_ptr, z_ptr, y_ptr, seed, site, tokens, width, eps, threshold, boost,
    DROPOUT: tl.constexpr, R: tl.constexpr, C: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    rows, columns = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, C)
    present = columns < width
    inside = (rows < tokens)[:, None] & present[None, :]
    offsets = rows.to(tl.int64)[:, None] * width + columns[None, :]
    a = tl.load(a_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    z = x + a * kept_factor(seed, site, rows, threshold, boost, DROPOUT, R, C, ROUNDS)
    stored = cast(z, z_ptr.dtype.element_ty)
    tl.store(z_ptr + offsets, stored, mask=inside)
    centred, inverse = _statistics(stored.to(tl.float32), inside, width, eps)
    gamma = tl.load(gamma_ptr + columns, mask=present, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + columns, mask=present, other=0.0).to(tl.float32)
    y = centred * inverse[:, None] * gamma[None, :] + beta[None, :]
    tl.store(y_ptr + offsets, cast(y, y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _add_pairs(a, b, c, d):
    return a + c, b + d


@triton.jit(do_not_specialize=["site", "threshold", "tokens"])
def _norm_backward(
    dy_ptr, z_ptr, gamma_ptr, sums_ptr, seed, site, tokens, width, eps, threshold, boost,
    DROPOUT: tl.constexpr, R: tl.constexpr, C: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    program, programs = tl.program_id(0), tl.num_programs(0)
    columns = tl.arange(0, C)
    present = columns < width
    gamma = tl.load(gamma_ptr + columns, mask=present, other=0.0).to(tl.float32)
    d_gamma, d_beta = tl.zeros([R, C], tl.float32), tl.zeros([R, C], tl.float32)
    d_bias = tl.zeros([R, C], tl.float32)
    rows = program * R + tl.arange(0, R)
    offsets = rows.to(tl.int64)[:, None] * width + columns[None, :]
    inside = (rows < tokens)[:, None] & present[None, :]
    next_dy = tl.load(dy_ptr + offsets, mask=inside, other=0.0)
    next_z = tl.load(z_ptr + offsets, mask=inside, other=0.0)
    for begin in range(program * R, tokens, programs * R):
        rows = begin + tl.arange(0, R)
        inside = (rows < tokens)[:, None] & present[None, :]
        offsets = rows.to(tl.int64)[:, None] * width + columns[None, :]
        dy, z = next_dy.to(tl.float32), next_z.to(tl.float32)
        # the next rows are on their way while these are computed
        later = (rows + programs * R < tokens)[:, None] & present[None, :]
        step = (programs * R).to(tl.int64) * width
        next_dy = tl.load(dy_ptr + offsets + step, mask=later, other=0.0)
        next_z = tl.load(z_ptr + offsets + step, mask=later, other=0.0)
        centred, inverse = _statistics(z, inside, width, eps)
        normal = centred * inverse[:, None]
        d_gamma += dy * normal
        d_beta += dy
        d_normal = dy * gamma[None, :]
        total, along = tl.reduce((d_normal, d_normal * normal), 1, _add_pairs)
        dz = d_normal - (total / width)[:, None] - normal * (along / width)[:, None]
        dz = tl.where(inside, dz * inverse[:, None], 0.0)
        # each row is read before it is overwritten, by the program that overwrites it
        tl.store(z_ptr + offsets, cast(dz, z_ptr.dtype.element_ty), mask=inside)
        da = dz * kept_factor(seed, site, rows, threshold, boost, DROPOUT, R, C, ROUNDS)
        if DROPOUT:
            tl.store(dy_ptr + offsets, cast(da, dy_ptr.dtype.element_ty), mask=inside)
        d_bias += da
    partial_ptr = sums_ptr + program * width + columns
    tl.store(partial_ptr, tl.sum(d_gamma, 0), mask=present)
    tl.store(partial_ptr + programs * width, tl.sum(d_beta, 0), mask=present)
    tl.store(partial_ptr + 2 * programs * width, tl.sum(d_bias, 0), mask=present)


@triton.jit(do_not_specialize=["tokens"])
def _gelu_backward(
    u_ptr, dg_ptr, sums_ptr, tokens, width, TOKENS: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):
    """u becomes gelu(u), and dg the gradient of u; its sums over TOKENS tokens are sums_ptr."""
    program = tl.program_id(0)
    columns = tl.program_id(1) * C + tl.arange(0, C)
    present = columns < width
    total = tl.zeros([R, C], tl.float32)
    for begin in range(program * TOKENS, tl.minimum((program + 1) * TOKENS, tokens), R):
        rows = begin + tl.arange(0, R)
        inside = (rows < tokens)[:, None] & present[None, :]
        offsets = rows.to(tl.int64)[:, None] * width + columns[None, :]
        u = tl.load(u_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        dg = tl.load(dg_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        density = tl.exp(-0.5 * u * u)
        # erfc(|u| / sqrt(2)) / density by Abramowitz and Stegun's 7.1.26, which is right to 1.5e-7
        t = 1.0 / (1.0 + 0.2316418882663604 * tl.abs(u))
        above = 1.061405429 * t - 1.453152027
        above = (above * t + 1.421413741) * t - 0.284496736
        above = 0.5 * (above * t + 0.254829592) * t * density
        below = tl.where(u < 0.0, above, 1.0 - above)
        du = dg * (below + u * 0.3989422804014327 * density)
        tl.store(u_ptr + offsets, cast(u * below, u_ptr.dtype.element_ty), mask=inside)
        tl.store(dg_ptr + offsets, cast(du, dg_ptr.dtype.element_ty), mask=inside)
        total += du
    tl.store(sums_ptr + program * width + columns, tl.sum(total, 0), mask=present)


@triton.jit(do_not_specialize=["programs"])
def _column_sums(
    sums_ptr, first_ptr, second_ptr, third_ptr, programs, width, R: tl.constexpr, C: tl.constexpr
):
    """Sums over the middle axis of fp32 [1 to 3, programs, width], each to an array of its own."""
    columns = tl.program_id(0) * C + tl.arange(0, C)
    present = columns < width
    which = tl.program_id(1)
    total = tl.zeros([R, C], tl.float32)
    for begin in range(0, programs, R):
        rows = begin + tl.arange(0, R)
        inside = (rows < programs)[:, None] & present[None, :]
        offsets = (which * programs + rows)[:, None] * width + columns[None, :]
        total += tl.load(sums_ptr + offsets, mask=inside, other=0.0)
    value = tl.sum(total, 0)
    if which == 0:
        tl.store(first_ptr + columns, cast(value, first_ptr.dtype.element_ty), mask=present)
    elif which == 1:
        tl.store(second_ptr + columns, cast(value, second_ptr.dtype.element_ty), mask=present)
    else:
        tl.store(third_ptr + columns, cast(value, third_ptr.dtype.element_ty), mask=present)


def add_norm(
    x: Tensor,
    a: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    p: float,
    seed: Tensor | None,
    site: int,
) -> tuple[Tensor, Tensor]:
    """See `haste.kernels.residual.add_norm`."""
    tokens, width = x.shape
    z, y = torch.empty_like(x), torch.empty_like(x)
    _add_norm[(triton.cdiv(tokens, ROWS),)](
        x, a, gamma, beta, z, y, seed, site, tokens, width, eps, *dropped(p),
        **_row_constants(width, p),
    )  # fmt: skip
    return z, y


def norm_backward(
    dy: Tensor,
    z: Tensor,
    gamma: Tensor,
    eps: float,
    p: float,
    seed: Tensor | None,
    site: int,
    gradients: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """See `haste.kernels.residual.norm_backward`."""
    tokens, width = z.shape
    programs = min(triton.cdiv(tokens, NORM_TOKENS), NORM_PROGRAMS * num_sms(z.device))
    sums = z.new_empty(3, programs, width, dtype=torch.float32)
    constants = {**_row_constants(width, p), "R": 1, "num_warps": 4}
    _norm_backward[(programs,)](
        dy, z, gamma, sums, seed, site, tokens, width, eps, *dropped(p), **constants
    )
    _sum_columns(sums, gradients)
    return z, dy if p else z


def gelu_backward(u: Tensor, dg: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """See `haste.kernels.residual.gelu_backward`."""
    tokens, width = u.shape
    programs = triton.cdiv(tokens, GELU_TOKENS)
    sums = u.new_empty(1, programs, width, dtype=torch.float32)
    _gelu_backward[(programs, triton.cdiv(width, GELU_COLUMNS))](
        u, dg, sums, tokens, width, TOKENS=GELU_TOKENS, R=GELU_ROWS, C=GELU_COLUMNS, num_warps=4
    )
    _sum_columns(sums, [gradient])
    return dg, u


def dropped(p: float) -> tuple[int, float]:
    """The bound below which 16 random bits drop a value, and the factor of the other values."""
    return round(p * 2**16), 1 / (1 - p)


def _sum_columns(sums: Tensor, out: Sequence[Tensor]) -> None:
    which, programs, width = sums.shape
    first, second, third = (*out, out[-1], out[-1])[:3]
    _column_sums[(triton.cdiv(width, SUMS_COLUMNS), which)](
        sums, first, second, third, programs, width, R=SUMS_ROWS, C=SUMS_COLUMNS
    )


def _row_constants(width: int, p: float) -> dict[str, object]:
    # random numbers come eight a call
    columns = max(16, triton.next_power_of_2(width))
    return {"DROPOUT": p > 0, "R": ROWS, "C": columns, "ROUNDS": PHILOX_ROUNDS, "num_warps": 8}
