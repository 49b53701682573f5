"""Every layer says itself which argument does not fit, what was given and what is allowed."""

import pytest
import torch

from haste.errors import KernelError
from haste.kernels.state import Positives, StepContext
from haste.layers.base import LayerOptions
from haste.layers.connectivity import prune_mask
from haste.layers.dense import Dense
from haste.layers.head_tail import HeadTail
from haste.layers.sparse import Sparse
from haste.layers.unstructured import Unstructured
from haste.layers.wrappers import FeatureDropout, WithAuxiliary

H, L, F, G = 32, 40, 16, 16
NAN = float("nan")


def seeded():
    return torch.Generator().manual_seed(0)


def head_tail(options):
    parts = (
        Dense(H, 8, options, seeded()),
        Sparse(H // 2, L - 8, F, options, seeded(), group_size=G),
    )
    return HeadTail(*parts, H, slice(0, H), slice(0, H // 2))


def auxiliary(options):
    clusters = torch.zeros(L, dtype=torch.int32)
    return WithAuxiliary(dense(options), Dense(H, 1, options, seeded()), clusters, float)


def dense(options):
    return Dense(H, L, options, seeded())


LAYERS = {
    "dense": dense,
    "unstructured": lambda options: Unstructured(H, L, F, options, seeded()),
    "fixed": lambda options: Sparse(H, L, F, options, seeded()),
    "group": lambda options: Sparse(H, L, F, options, seeded(), group_size=G),
    "block": lambda options: Sparse(H, L, F, options, seeded(), group_size=G, block_size=8),
    "head_tail": head_tail,
    "dropout": lambda options: FeatureDropout(dense(options), 0.5, 0),
    "auxiliary": auxiliary,
}
PAIRS = Positives(torch.tensor([3], dtype=torch.int32), torch.tensor([1], dtype=torch.int32))
FEATURES = [
    (
        torch.zeros(4, H - 4),
        rf"features: shape \[4, 28\] does not fit; expected \[at least 1, {H}\]",
    ),
    (torch.zeros(4, 2 * H), r"features: shape \[4, 64\] does not fit"),
    (torch.zeros(H), r"features: shape \[32\] does not fit"),
    (torch.zeros(0, H), r"features: shape \[0, 32\] does not fit"),
    (torch.zeros(4, H).double(), "features: dtype: .*float64 is not allowed; use .*float32"),
    (torch.zeros(4, H).int(), "features: dtype: .*int32 is not allowed"),
    (torch.zeros(4, H, device="meta"), "features: is on meta, but the layer is on cpu"),
    ([0.0] * H, "features: expected a tensor, got list"),
]


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("name", LAYERS)
def test_features_that_do_not_fit(name, backend):
    layer = LAYERS[name](LayerOptions(backend=backend))
    for features, message in FEATURES:
        with pytest.raises(KernelError, match=message):
            layer.step(features, PAIRS, StepContext(0.1, 0, 0))
        with pytest.raises(KernelError, match=message):
            layer.logits(features, slice(0, L))
        with pytest.raises(KernelError, match=message):
            layer.topk(features, 2)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("name", LAYERS)
def test_other_arguments_of_a_step_that_do_not_fit(name, backend):
    layer = LAYERS[name](LayerOptions(backend=backend))
    features, one = torch.zeros(4, H), torch.tensor([1], dtype=torch.int32)
    for pairs, lr, message in (
        (PAIRS, NAN, "lr: nan is not allowed"),
        (PAIRS, -0.1, "lr: -0.1 is not allowed"),
        (Positives(one, one.long()), 0.1, "positives.doc: dtype int64 is not allowed; use int32"),
        (
            Positives(one, 0 * one + 4),
            0.1,
            "positives.doc: values from 4 to 4 leave the range 0 to 3",
        ),
    ):
        with pytest.raises(KernelError, match=message):
            layer.step(features, pairs, StepContext(lr, 0, 0))


@pytest.mark.parametrize("other", [{"loss": "squared_hinge"}, {"optimizer": "adamw"}])
@pytest.mark.parametrize("name", ["dense", "fixed", "group"])
def test_what_only_plain_torch_steps(name, other):
    layer = LAYERS[name](LayerOptions(backend="triton", **other))
    with pytest.raises(KernelError, match="backend: triton steps by SGD on bce alone"):
        layer.step(torch.zeros(4, H), PAIRS, StepContext(0.1, 0, 0))


@pytest.mark.parametrize("lacking", ["momentum", "squared_momentum", "bias_squared_momentum"])
def test_adamw_needs_its_momenta(lacking):
    layer = dense(LayerOptions(optimizer="adamw"))
    setattr(layer, lacking, None)
    with pytest.raises(KernelError, match=lacking):
        layer.step(torch.zeros(4, H), PAIRS, StepContext(0.1, 0, 0))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rows", [slice(0, L + 1), slice(-1, 3), slice(5, 5), slice(None)])
def test_rows_of_no_labels(name, rows):
    with pytest.raises(KernelError, match=f"rows: .* with 0 <= begin < end <= {L}"):
        LAYERS[name](LayerOptions()).logits(torch.zeros(4, H), rows)


@pytest.mark.parametrize("name", ["unstructured", "fixed", "group", "block"])
def test_growth_by_gradient_needs_a_batch(name):
    layer = LAYERS[name](LayerOptions(growth="gradient"))
    with pytest.raises(KernelError, match="examples: growth by gradient needs a batch"):
        layer.rewire(seeded())
    with pytest.raises(KernelError, match="features: shape"):
        layer.rewire(seeded(), (torch.zeros(4, H + 1), PAIRS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 2.0}, "fraction: 2.0 is not allowed; use an int or float from 0 to 1"),
        ({"fraction": -1}, "fraction: -1 is not allowed"),
        ({"fraction": NAN}, "fraction: nan is not allowed"),
        ({"momentum": NAN}, "momentum: nan is not allowed"),
        ({"momentum": 1.0, "optimizer": "adamw"}, "momentum: 1.0 is not allowed"),
        ({"weight_decay": -5}, "weight_decay: -5 is not allowed"),
        ({"dtype": torch.int8}, "dtype: torch.int8 is not allowed; use one of torch.float32"),
        ({"loss_dtype": torch.float16}, "loss_dtype: torch.float16 is not allowed"),
        ({"rounding": "up"}, "rounding: up is not allowed; use one of stochastic, nearest"),
        ({"loss": "hinge"}, "loss: hinge is not allowed; use one of bce, squared_hinge"),
        ({"optimizer": "adam"}, "optimizer: adam is not allowed; use one of sgd, adamw"),
        ({"threshold": -1}, "threshold: -1 is not allowed"),
        ({"growth": "fast"}, "growth: fast is not allowed"),
        ({"scope": "all"}, "scope: all is not allowed"),
        ({"backend": "cuda"}, "backend: cuda is not allowed; use one of triton, torch"),
    ],
)
def test_options_that_are_none(options, message):
    with pytest.raises(KernelError, match=message):
        LayerOptions(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: Dense(0, L, o, seeded()), "n_features: 0 is not allowed"),
        (lambda o: Dense(H, -1, o, seeded()), "n_labels: -1 is not allowed"),
        (lambda o: Dense(H, L, o, seeded(), chunks=0), "chunks: 0 is not allowed"),
        (lambda o: Sparse(H, L, 0, o, seeded()), "fan_in: 0 is not allowed"),
        (lambda o: Sparse(H, L, F, o, seeded(), group_size=0), "group_size: 0 is not allowed"),
        (
            lambda o: Sparse(H, L, F, o, seeded(), group_size=G, block_size=0),
            "block_size: 0 is not allowed",
        ),
        (lambda o: FeatureDropout(dense(o), 1.0, 0), "p: 1.0 is not allowed"),
        (lambda o: FeatureDropout(dense(o), NAN, 0), "p: nan is not allowed"),
    ],
)
def test_sizes_that_are_none(make, message):
    with pytest.raises(KernelError, match=message):
        make(LayerOptions())


@pytest.mark.parametrize("fraction", [2.0, -1, NAN])
@pytest.mark.parametrize("scope", ["global", "group"])
def test_a_share_to_prune_that_is_none(scope, fraction):
    with pytest.raises(KernelError, match=f"fraction: {fraction} is not allowed"):
        prune_mask(torch.zeros(3, 4), fraction, scope)
