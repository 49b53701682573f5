"""The public functions, on each backend, against dense products in fp64.

On a machine with a GPU the Triton kernels run compiled, elsewhere in Triton's interpreter.
"""

import pytest
import torch
from kernel_problems import DEVICE, LR, NAMES, SGD, cast, error, naive, oracle, problem, run, within

from haste.errors import KernelError
from haste.kernels import (
    dense_fused_step,
    group_fused_step,
    group_linear,
    reference,
)
from haste.kernels.reference import block_index
from haste.kernels.rounding import FP8, dequantize, round_to
from haste.kernels.state import Sgd, StepContext

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CONTEXT = {"lr": LR, "seed": 1, "step": 2}
# batch, features, labels, fan-in, group size
SHAPES = [(1, 96, 16, 16, 16), (3, 40, 37, 32, 16), (70, 64, 70, 64, 32), (20, 48, 130, 32, 64)]


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """What nobody wrote is NaN."""
    plain = torch.empty

    def empty(*size, **options):
        out = plain(*size, **options)
        return out.fill_(torch.nan) if out.dtype.is_floating_point else out

    monkeypatch.setattr(torch, "empty", empty)


def gradients(function, features, weight, bias, upstream):
    """Output and gradients of a function of (features, weight, bias) by autograd."""
    leaves = [leaf.clone().requires_grad_() for leaf in (features, weight, bias)]
    out = function(*leaves)
    out.backward(upstream.to(out.dtype))
    return {"out": out.detach(), **{n: x.grad for n, x in zip("hwb", leaves, strict=True)}}


def check_linear(p, dtype, group_size, index=None, **options):
    """Output and gradients of `group_linear` are as good as a dense product in the same dtype."""
    own, size = cast(p, dtype), {"group_size": group_size}
    shape = (p["features"].shape[0], len(p["bias"]))
    upstream = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    features = p["index"]
    if index is None:
        index = features
    else:
        features = block_index(index, options["block_size"])

    def linear(h, w, b):
        return group_linear(h, w, index, b, **size, **options)

    def by_dense(h, w, b):
        return reference.linear(h, w, features, b, group_size)

    state = [own[k] for k in ("features", "weight", "bias")]
    got = gradients(linear, *state, upstream)
    plain = gradients(by_dense, *state, upstream.to(dtype))
    want = gradients(by_dense, *(x.double() for x in state), upstream.to(dtype).double())
    for name, value in want.items():
        assert got[name].dtype == dtype
        assert within(got[name], plain[name], value, dtype), name
    return got


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_group_linear_and_its_gradients(shape, dtype, backend):
    check_linear(problem(*shape), dtype, shape[4], backend=backend)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_group_linear_sums_in_a_fixed_order(shape, dtype):
    more = {"unique_indices": True, "deterministic": True, "backend": "triton"}
    first, second = (check_linear(problem(*shape), dtype, shape[4], **more) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("fan_in", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("group_size", [16, 32, 64, 128])
def test_every_fan_in_and_group_size(fan_in, group_size):
    p = problem(3, 264, group_size + 3, fan_in, group_size)
    check_linear(p, torch.float32, group_size, backend="triton")
    check_fused("group", p, torch.float32, group_size, backend="triton")
    more = {"unique_indices": True, "deterministic": True}
    check_fused("group", p, torch.float32, group_size, backend="triton", **more)


GROUPS = {"dense": 1, "fixed": 1, "group": 16}
every_kind = pytest.mark.parametrize("kind", GROUPS)


def problem_of(kind, dtype, **options):
    if kind == "dense":
        return cast(dense_problem(6, 32, 40, **options), dtype)
    return cast(problem(6, 48, 40, 32, GROUPS[kind], **options), dtype)


@every_kind
@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(15, 0)],
        [(0, 0), (0, 1), (0, 2), (0, 3)],
        [(15, 1), (15, 2), (16, 1), (16, 2)],
        [(label, 0) for label in range(32)],
        [(label, row) for label in range(40) for row in range(4)],
    ],
    ids=["none", "one", "one label", "group border", "one document", "all"],
)
def test_where_positives_lie(kind, pairs):
    size = 16 if kind == "group" else 1
    p = dense_problem(4, 32, 40) if kind == "dense" else problem(4, 48, 40, 32, size)
    found = torch.tensor(pairs, dtype=torch.int32, device=DEVICE).view(-1, 2)
    p["label"], p["row"] = found[:, 0].contiguous(), found[:, 1].contiguous()
    for backend in ("triton", "torch"):
        check_fused(kind, p, torch.float32, size, backend=backend)


def test_large_batches_go_in_parts(monkeypatch):
    from haste.kernels.triton import group_linear as products

    monkeypatch.setattr(products, "MAX_BATCH", 32)
    check_linear(problem(70, 64, 40, 16, 16), torch.float32, 16, backend="triton")


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_repeated_features_add_up(backend):
    p = problem(6, 32, 40, 32, 16, repeated=True)
    check_linear(p, torch.float32, 16, backend=backend)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("batch", [3, 70])
def test_fixed_fan_in_linear_and_its_gradients(batch, unique, dtype, backend):
    p = problem(batch, 48, 37, 32, 1, repeated=not unique)
    check_linear(p, dtype, 1, unique_indices=unique, backend=backend)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_block_sparse_linear_and_its_gradients(dtype, backend):
    start = torch.stack([torch.randperm(8)[:4] for _ in range(3)]).int().to(DEVICE)
    check_linear(problem(5, 64, 40, 32, 16), dtype, 16, start, block_size=8, backend=backend)


def test_without_a_bias():
    p = cast(problem(4, 64, 40, 32, 16), torch.float32)
    for backend in ("triton", "torch"):
        got = group_linear(p["features"], p["weight"], p["index"], group_size=16, backend=backend)
        want = reference.linear(p["features"], p["weight"], p["index"], None, 16)
        assert error(got, want.double()) < 1e-5


def fused_of(kind, p, size=16, **more):
    """A fused step as `run` calls it; settings of SGD and of the step may be among `more`."""
    settings = {"momentum": SGD.momentum if p["momentum"] is not None else 0.0}
    settings |= {"weight_decay": SGD.weight_decay, "rounding": "nearest"}
    sgd = Sgd(**{name: more.pop(name, value) for name, value in settings.items()})
    context = StepContext(*(more.pop(name, value) for name, value in CONTEXT.items()))

    def step(features, state, index, *given, group_size, **options):
        if kind == "dense":
            return dense_fused_step(features, state, *given, **options)
        size = 1 if kind == "fixed" else group_size
        return group_fused_step(features, state, index, *given, group_size=size, **options)

    return run(step, p, size, sgd, context, **more)


def dense_problem(batch, n_features, n_labels, momentum=True, positives=0.1):
    p = problem(batch, n_features, n_labels, n_features, 1, positives, momentum=momentum)
    whole = torch.arange(n_features, dtype=torch.int32, device=DEVICE)
    return {**p, "index": whole.repeat(n_labels, 1)}


def check_fused(kind, p, dtype, group_size, **more):
    own = cast(p, dtype)
    want = oracle(own, group_size)
    got = fused_of(kind, own, group_size, **more)
    plain = naive(own, group_size)
    for name in ("loss", "dx", *NAMES):
        if want[name] is not None:
            assert within(got[name], plain[name], want[name], dtype), name


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 96, 16), (3, 40, 37), (70, 64, 130), (257, 16, 5)])
@pytest.mark.parametrize("momentum", [True, False])
def test_dense_fused_step(shape, dtype, backend, momentum):
    # each positive is a program, a few milliseconds in the interpreter
    p = dense_problem(*shape, momentum=momentum, positives=0.02 if shape[0] == 70 else 0.1)
    check_fused("dense", p, dtype, 1, backend=backend)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unique_indices", [True, False])
def test_fixed_fan_in_fused_step(dtype, unique_indices, backend):
    p = problem(7, 48, 150, 32, 1, repeated=not unique_indices)
    check_fused("fixed", p, dtype, 1, backend=backend, unique_indices=unique_indices)


@every_kind
def test_numbers_may_lie_in_memory(kind):
    p = problem_of(kind, torch.bfloat16)
    more = {"backend": "triton", "rounding": "stochastic"}
    there = {
        "lr": torch.tensor(LR, device=DEVICE),
        "step": torch.tensor(CONTEXT["step"], dtype=torch.int32, device=DEVICE),
    }
    want, got = fused_of(kind, p, **more), fused_of(kind, p, **more, **there)
    # sums by atomics differ in their last digits
    assert torch.allclose(got["dx"], want["dx"], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(got[name], want[name]) for name in NAMES)
    other = fused_of(kind, p, **more, lr=there["lr"], step=there["step"] + 1)
    assert not torch.equal(other["weight"], want["weight"])


@every_kind
def test_places_without_a_positive_count_for_nothing(kind):
    p = problem_of(kind, torch.bfloat16)
    nobody = torch.full((5,), len(p["bias"]), dtype=torch.int32, device=DEVICE)
    padded = {
        **p,
        "label": torch.cat([p["label"], nobody]),
        "row": torch.cat([p["row"], 0 * nobody]),
    }
    want, got = fused_of(kind, p, backend="triton"), fused_of(kind, padded, backend="triton")
    assert torch.allclose(got["loss"], want["loss"])
    assert all(torch.equal(got[name], want[name]) for name in NAMES)


@every_kind
def test_the_released_bf16_loss_in_kernels(kind):
    # weights of fp32, so that nothing is rounded but the loss
    p = problem_of(kind, torch.float32)
    p["bias"] *= 4
    exact = fused_of(kind, p, backend="triton")
    got = fused_of(kind, p, backend="triton", loss_dtype=torch.bfloat16)
    want = fused_of(kind, p, backend="torch", loss_dtype=torch.bfloat16)
    for name in ("loss", "dx", "weight", "bias"):
        assert error(got[name], want[name].double()) < 2e-5, name
    assert error(exact["dx"], want["dx"].double()) > 5e-4
    assert error(exact["loss"], want["loss"].double()) > 5e-5


def test_dense_steps_go_chunk_by_chunk(monkeypatch):
    from haste.kernels.triton import dense

    monkeypatch.setattr(dense, "CHUNK_BYTES", 2 * 128 * 20)
    p = dense_problem(20, 32, 150, positives=0.02)
    check_fused("dense", p, torch.float32, 1, backend="triton")
    check_fused("fixed", problem(20, 48, 150, 32, 1), torch.float32, 1, backend="triton")


def test_the_caller_bounds_the_labels_of_a_chunk(monkeypatch):
    from haste.kernels.triton import dense

    sizes = []
    backward = dense._Chunks.backward

    def noted(self, labels, rows):
        sizes.append(len(rows))
        return backward(self, labels, rows)

    monkeypatch.setattr(dense._Chunks, "backward", noted)
    p = dense_problem(6, 32, 150)
    check_fused("dense", p, torch.float32, 1, backend="triton", labels_per_chunk=75)
    assert set(sizes) == {64, 22}


def test_groups_go_chunk_by_chunk_in_a_fixed_order(monkeypatch):
    from haste.kernels.triton import group_step

    monkeypatch.setattr(group_step, "LABELS_PER_CHUNK", 64)
    p = problem(5, 40, 100, 16, 16)
    more = {"backend": "triton", "unique_indices": True, "deterministic": True}
    for dtype in (torch.float32, torch.bfloat16):
        check_fused("group", p, dtype, 16, **more)
    own = cast(p, torch.bfloat16)
    first, second = fused_of("group", own, **more), fused_of("group", own, **more)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("few", [0, 10**9])
@pytest.mark.parametrize("at_once", [1, 5, 10**9])
def test_positives_are_found_however_many_there_are(monkeypatch, few, at_once):
    from haste.kernels.triton import group_step

    p = problem(6, 32, 72, 16, 16, positives=0.01)
    groups = (p["label"] // 16).unique().numel()
    assert 1 < groups < 5, "some groups have a positive and some have none"
    monkeypatch.setattr(group_step, "FEW", few)
    monkeypatch.setattr(group_step, "TARGET_BYTES", at_once * 16 * 16)
    check_fused("group", p, torch.float32, 16, backend="triton")
    monkeypatch.setattr(group_step, "LABELS_PER_CHUNK", 32)
    more = {"unique_indices": True, "deterministic": True}
    check_fused("group", p, torch.float32, 16, backend="triton", **more)


@every_kind
def test_labels_of_another_part_are_passed_over(kind):
    p = problem_of(kind, torch.float32)
    want = fused_of(kind, p, backend="triton")
    extra = torch.tensor([-20, -1], dtype=torch.int32, device=DEVICE)
    beyond = torch.tensor([40, 63, 64, 500], dtype=torch.int32, device=DEVICE)
    p["label"] = torch.cat([extra, p["label"], beyond])
    p["row"] = torch.cat([extra * 0, p["row"], beyond * 0])
    got = fused_of(kind, p, backend="triton")
    for name in ("loss", "dx", *NAMES):
        assert error(got[name], want[name].double()) < 1e-6, name


def test_pruned_weights_stay_as_they_are():
    p = cast(dense_problem(6, 32, 40), torch.float32)
    mask = torch.rand(40, 32, generator=torch.Generator().manual_seed(1)).to(DEVICE) < 0.5
    p["weight"] *= mask
    p["momentum"] *= mask
    results = [fused_of("dense", p, backend=backend, mask=mask) for backend in ("triton", "torch")]
    for name in ("loss", "dx", *NAMES):
        assert error(results[0][name], results[1][name].double()) < 1e-5, name
    assert not results[0]["weight"][~mask].any()


@every_kind
@pytest.mark.parametrize("momentum", [True, False])
def test_e4m3_weights(kind, momentum):
    p = problem_of(kind, torch.bfloat16, momentum=momentum)
    p["weight"] = round_to(p["weight"].float(), FP8, "nearest", None)
    wide = {**p, "weight": dequantize(p["weight"])}
    want = oracle(wide, GROUPS[kind])
    for backend in ("triton", "torch"):
        got = fused_of(kind, p, backend=backend)
        assert error(got["loss"], want["loss"]) < 2e-3
        assert error(got["dx"], want["dx"]) < 5e-3
        assert error(got["bias"], want["bias"]) < 5e-3
        # four significant bits
        assert error(dequantize(got["weight"]), want["weight"]) < 0.04
        if momentum:
            assert error(got["momentum"], want["momentum"]) < 5e-3


@pytest.mark.parametrize(
    "options",
    [{}, {"unique_indices": True}, {"unique_indices": True, "deterministic": True}],
    ids=["atomics", "chosen", "dense"],
)
@pytest.mark.parametrize("group_size", [1, 16])
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_product_with_e4m3_weights_has_a_gradient_of_the_features(backend, group_size, options):
    p = cast(problem(130, 48, 40, 16, group_size), torch.bfloat16)
    weight = round_to(p["weight"].float(), FP8, "nearest", None)
    features = p["features"].requires_grad_()
    out = group_linear(
        features, weight, p["index"], p["bias"], group_size=group_size, backend=backend, **options
    )
    out.sum().backward()
    dense = reference.dense_weight(dequantize(weight).double(), p["index"], 48, group_size)
    assert error(out.detach(), features.detach().double() @ dense.T + p["bias"].double()) < 5e-3
    assert error(features.grad, dense.sum(0).expand(130, -1)) < 5e-3


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, FP8])
def test_stochastic_rounding_moves_weights_as_far_on_average(kind, dtype):
    if kind == "dense":
        p = dense_problem(1, 32, 512, momentum=False, positives=0.0)
    elif kind == "group":
        p = problem(1, 48, 512, 32, 16, 0.0, momentum=False)
    else:
        p = problem(1, 144, 128, 128, 1, 0.0, momentum=False)
    p = cast(p, torch.bfloat16)
    p["features"].fill_(1.0)
    p["weight"].fill_(1.0)
    p["bias"].zero_()
    p["weight"] = round_to(p["weight"].float(), dtype, "nearest", None)
    # sigmoid(32) = 1: each weight should lose an eighth of a step below 1
    spacing = 2**-8 if dtype == torch.bfloat16 else 2**-4
    more = {"lr": spacing / 8, "weight_decay": 0.0, "rounding": "stochastic", "backend": "triton"}
    got = fused_of(kind, p, **more)
    weight = dequantize(got["weight"])
    assert set(weight.unique().tolist()) == {1 - spacing, 1.0}
    assert (weight < 1).float().mean().item() == pytest.approx(1 / 8, abs=0.012)
    again = fused_of(kind, p, **more)
    assert torch.equal(weight, dequantize(again["weight"]))
    other = fused_of(kind, p, **{**more, "step": 3})
    changed = (weight != dequantize(other["weight"])).float().mean().item()
    assert changed == pytest.approx(2 * 7 / 64, abs=0.02)


def test_which_backend_runs_and_that_others_are_refused(monkeypatch):
    from haste.kernels.api import choose_backend

    here = torch.zeros(1)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose_backend(None, here) == "triton"
    monkeypatch.delenv("TRITON_INTERPRET")
    assert choose_backend(None, here) == "torch"
    assert choose_backend("triton", here) == "triton"
    with pytest.raises(KernelError, match="backend: cuda is not allowed; use one of triton, torch"):
        choose_backend("cuda", here)


FAULTS = [
    ("index", lambda p: p["index"] + 60, "index: values from .* leave the range 0 to 63"),
    ("index", lambda p: p["index"].long(), "index: dtype int64 is not allowed; use int32"),
    ("weight", lambda p: p["weight"].t().contiguous().t(), "weight: is not contiguous"),
    ("features", lambda p: p["features"].int(), "features: dtype int32 is not allowed"),
    ("bias", lambda p: p["bias"][:5], r"bias: shape \[5\] does not fit; expected \[40\]"),
]


@pytest.mark.parametrize(("name", "change", "message"), FAULTS)
def test_faults_are_named(name, change, message):
    p = cast(problem(4, 64, 40, 16, 16), torch.float32)
    p[name] = change(p)
    state = [p[k] for k in ("features", "weight", "index", "bias")]
    with pytest.raises(KernelError, match=message):
        group_linear(*state, group_size=16, backend="triton")


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "group_size: 0 is not allowed"),
        ({"block_size": 0}, "block_size: 0 is not allowed"),
        ({"block_size": 3}, "block_size: 3 does not divide the fan-in, 16"),
        ({"lr": float("nan")}, "lr: nan is not allowed"),
        ({"momentum": -1.0}, "momentum: -1.0 is not allowed"),
        ({"weight_decay": float("inf")}, "weight_decay: inf is not allowed"),
        ({"rounding": "up"}, "rounding: up is not allowed; use one of stochastic, nearest"),
        ({"loss_dtype": torch.int8}, "loss_dtype: torch.int8 is not allowed"),
    ],
)
def test_settings_of_a_step_are_refused_by_name(backend, options, message):
    p = cast(problem(4, 64, 40, 16, 16), torch.float32)
    with pytest.raises(KernelError, match=message):
        fused_of("group", p, **{"size": 16, "backend": backend, **options})


@pytest.mark.parametrize("backend", ["triton", "torch"])
@every_kind
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("features", lambda value: value.double(), "features: dtype float64 is not allowed"),
        ("features", lambda value: value[:0], r"features: shape \[0, \d+\] does not fit"),
        ("features", lambda value: value[0, 0], r"features: shape \[\] does not fit"),
        ("features", lambda value: value[:, :8].contiguous(), "weight: "),
        ("bias", lambda value: value[:5], r"bias: shape \[5\] does not fit"),
        ("momentum", lambda value: value[:5], r"momentum: shape \[5, \d+\] does not fit"),
        ("label", lambda value: value[:-1], r"positives.doc: shape"),
        pytest.param(
            *("row", lambda value: value + 100),
            "positives.doc: values from 1.. to 1.. leave the range",
            marks=pytest.mark.skipif(DEVICE == "cuda", reason="a step reads nothing from a GPU"),
        ),
        pytest.param(
            *("label", lambda value: value.flip(0)),
            "positives.label_row: not ascending",
            marks=pytest.mark.skipif(DEVICE == "cuda", reason="a step reads nothing from a GPU"),
        ),
    ],
)
def test_faults_of_a_step_are_named(backend, kind, name, change, message):
    p = dense_problem(4, 32, 40) if kind == "dense" else problem(4, 32, 40, 16, GROUPS[kind])
    p = cast(p, torch.float32)
    p[name] = change(p[name])
    with pytest.raises(KernelError, match=message):
        fused_of(kind, p, backend=backend)


def test_a_fan_in_that_has_no_kernel_is_named():
    p = cast(problem(4, 64, 40, 15, 16), torch.float32)
    with pytest.raises(KernelError, match="weight: fan-in: 15 is not allowed; use one of 16, 32"):
        group_linear(*(p[k] for k in ("features", "weight", "index", "bias")), group_size=16)
    with pytest.raises(KernelError, match="weight: fan-in: 15 is not allowed; use one of 16, 32"):
        fused_of("group", p, backend="triton")


def test_a_fixed_order_needs_unique_indices():
    p = cast(problem(4, 64, 40, 16, 16), torch.float32)
    state = [p[k] for k in ("features", "weight", "index", "bias")]
    with pytest.raises(KernelError, match="deterministic: needs unique_indices=True"):
        group_linear(*state, group_size=16, deterministic=True)
    with pytest.raises(KernelError, match="deterministic: needs unique_indices=True"):
        fused_of("group", p, backend="triton", deterministic=True)


def test_one_momentum_without_the_other_is_refused():
    p = cast(problem(4, 64, 40, 16, 16), torch.float32)
    with pytest.raises(KernelError, match="momentum: give one for the weights and one for the"):
        run(group_fused_step, {**p, "bias_momentum": None}, 16, backend="triton")
