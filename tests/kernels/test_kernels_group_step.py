"""The Triton step of the group-shared layer against the naive reference in fp64.

On a machine with a GPU these run compiled, elsewhere in Triton's interpreter.
"""

import pytest
import torch
from kernel_problems import DEVICE, NAMES, cast, error, naive, oracle, problem, run, within

from haste.errors import ConfigError, KernelError
from haste.kernels import group_fused_step
from haste.kernels.state import LayerState, Positives, Sgd, StepContext
from haste.kernels.triton import group_step
from haste.layers.build import choose_backend

SHAPES = [
    (1, 96, 16, 16, 16),
    (3, 96, 37, 32, 16),
    (33, 64, 5, 64, 16),
    (64, 96, 100, 16, 32),
    (17, 48, 130, 32, 64),
    (5, 384, 150, 128, 128),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("momentum", [False, True])
def test_errors_are_no_larger_than_torchs_at_the_same_dtype(shape, dtype, momentum):
    p = cast(problem(*shape, momentum=momentum), dtype)
    want = oracle(p, shape[4])
    got = run(group_step.group_step, p, shape[4])
    plain = naive(p, shape[4])
    for name in ("loss", "dx", *NAMES):
        if want[name] is not None:
            assert within(got[name], plain[name], want[name], dtype), name


@pytest.mark.parametrize("positives", [0.0, 1.0])
def test_no_positives_and_nothing_but(positives):
    p = cast(problem(6, 64, 40, 32, 16, positives=positives), torch.float32)
    want, got = oracle(p, 16), run(group_step.group_step, p, 16)
    assert error(got["loss"], want["loss"]) < 1e-5
    assert error(got["dx"], want["dx"]) < 1e-5
    assert error(got["bias"], want["bias"]) < 1e-5


def test_repeated_features_sum():
    p = cast(problem(6, 32, 40, 32, 16, repeated=True), torch.float32)
    want, got = oracle(p, 16), run(group_step.group_step, p, 16)
    for name in ("loss", "dx", *NAMES):
        assert error(got[name], want[name]) < 1e-5, name


@pytest.mark.parametrize("launch", [(16, 1, 1), (32, 4, 2), (64, 2, 3), (16, 4, 2, 2, False)])
def test_the_launch_changes_nothing(launch):
    p = cast(problem(50, 64, 90, 32, 16), torch.float32)
    want = oracle(p, 16)
    chosen = group_step.Launch(*launch)
    got = run(group_step.group_step, p, 16, launch=chosen)
    for name in ("loss", "dx", *NAMES):
        assert error(got[name], want[name]) < 1e-5, name


def test_extreme_logits():
    p = cast(problem(4, 32, 16, 16, 16), torch.float32)
    p["weight"] *= 300
    want, got = oracle(p, 16), run(group_step.group_step, p, 16)
    assert error(got["loss"], want["loss"]) < 1e-5
    assert error(got["dx"], want["dx"]) < 1e-4


def test_small_losses_are_summed_to_the_last_digits():
    p = cast(problem(64, 32, 160, 16, 16, positives=0.0), torch.float32)
    p["weight"] *= 0
    p["bias"].fill_(-12.0)
    got = run(group_step.group_step, p, 16)
    assert float(got["loss"]) == pytest.approx(64 * 160 * 6.144193478e-06, rel=1e-5)


def test_stochastic_rounding_is_unbiased_and_a_function_of_seed_and_step():
    stochastic = Sgd()
    p = problem(1, 16, 2048, 16, 128, positives=0.0, momentum=False)
    p["features"].fill_(1.0)
    p["weight"].fill_(1.0)
    p["bias"].fill_(0.0)
    p = cast(p, torch.bfloat16)

    def weights(seed, step):
        context = StepContext(2**-11, seed, step)
        return run(group_step.group_step, p, 128, stochastic, context)["weight"].float()

    # sigmoid(16) = 1, so each weight should lose 2^-11: an eighth of bf16's step below 1, 2^-8
    first = weights(1, 2)
    assert set(first.unique().tolist()) == {1 - 2**-8, 1.0}
    assert (first < 1).float().mean().item() == pytest.approx(1 / 8, abs=0.01)
    assert torch.equal(first, weights(1, 2))
    for other in (weights(1, 3), weights(2, 2)):
        changed = (first != other).float().mean().item()
        assert changed == pytest.approx(2 * 7 / 64, abs=0.02)


def test_a_loss_that_is_not_finite_is_seen():
    p = cast(problem(4, 32, 16, 16, 16), torch.float32)
    p["weight"][3, 2] = torch.nan
    got = run(group_step.group_step, p, 16)
    assert got["loss"].isnan()


FAULTS = [
    ("group_size", 17, r"group_size: 17 is not allowed; use one of 16, 32, 64, 128"),
    ("weight", lambda p: p["weight"].double(), "weight: dtype float64 is not allowed"),
    ("weight", lambda p: p["weight"].t().contiguous().t(), "weight: is not contiguous"),
    ("index", lambda p: p["index"].long(), "index: dtype int64 is not allowed; use int32"),
    ("index", lambda p: p["index"][:1], r"index: shape \[1, 16\] does not fit; expected \[3, 16\]"),
    ("bias", lambda p: p["bias"][:5], r"bias: shape \[5\] does not fit; expected \[40\]"),
    ("bias", lambda p: p["bias"].half(), "bias: dtype float16 is not allowed; use float32"),
    ("momentum", lambda p: p["momentum"][:5], r"momentum: shape \[5, 16\] does not fit"),
    ("features", lambda p: p["features"].int(), "features: dtype int32 is not allowed"),
]


@pytest.mark.parametrize(("name", "change", "message"), FAULTS)
def test_faults_are_named_before_any_launch(name, change, message):
    p = cast(problem(4, 32, 40, 16, 16), torch.float32)
    size = change if name == "group_size" else 16
    if name != "group_size":
        p[name] = change(p)
    before = p["weight"].clone()
    with pytest.raises(KernelError, match=message):
        run(group_fused_step, p, size, backend="triton")
    assert torch.equal(p["weight"], before)


def test_more_indices_than_can_be_counted(monkeypatch):
    monkeypatch.setattr(group_step, "MOST_INDICES", 47)
    p = cast(problem(4, 32, 40, 16, 16), torch.float32)
    with pytest.raises(KernelError, match="index: 48 entries are more than 47; take larger groups"):
        run(group_step.group_step, p, 16)


def test_agrees_with_the_torch_backend():
    p = cast(problem(20, 64, 100, 32, 16), torch.float32)
    got = run(group_step.group_step, p, 16)
    want = run(group_fused_step, p, 16, backend="torch")
    for name in ("loss", "dx", *NAMES):
        assert error(got[name], want[name].double()) < 1e-5, name


def test_which_backend_runs(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_backend("auto", cpu) == "torch"
    assert choose_backend("auto", gpu) == "triton"
    assert choose_backend("auto", gpu, ordered_repeats=True) == "torch"
    assert choose_backend("torch", gpu) == "torch"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose_backend("triton", cpu) == "triton"
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(
        ConfigError, match=r"training\.backend: triton needs a CUDA GPU, or TRITON_INTERPRET=1"
    ):
        choose_backend("triton", cpu)
    with pytest.raises(ConfigError, match=r"training\.backend: triton has no fixed order"):
        choose_backend("triton", gpu, ordered_repeats=True)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA GPU")
def test_offsets_beyond_two_to_the_31():
    n_labels, fan_in, group_size = (1 << 24) + 40, 128, 64
    p = problem(2, 128, 64, fan_in, group_size, positives=0.0, momentum=False)
    weight = torch.zeros(n_labels, fan_in, dtype=torch.bfloat16, device=DEVICE)
    weight[-1] = 1.0
    index = torch.arange(fan_in, dtype=torch.int32, device=DEVICE).repeat(
        -(-n_labels // group_size), 1
    )
    bias = torch.full((n_labels,), -30.0, dtype=torch.bfloat16, device=DEVICE)
    pairs = Positives(
        torch.tensor([n_labels - 1], dtype=torch.int32, device=DEVICE),
        torch.tensor([1], dtype=torch.int32, device=DEVICE),
    )
    features = p["features"].bfloat16()
    _, grad = group_step.group_step(
        features,
        LayerState(weight, bias),
        index,
        pairs,
        StepContext(1.0, 0, 0),
        Sgd(),
        group_size=group_size,
    )
    z = features[1].double().sum() - 30
    assert torch.allclose(
        grad[1].double(), torch.full_like(grad[1], float(torch.sigmoid(z) - 1)).double(), rtol=1e-2
    )
    assert not torch.equal(weight[-1], torch.ones_like(weight[-1]))
