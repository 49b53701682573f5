"""Random problems for kernels, their answers in fp64, and the error between the two."""

import torch

from haste.kernels import reference
from haste.kernels.state import LayerState, Positives, Sgd, StepContext

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SGD = Sgd(momentum=0.9, weight_decay=1e-2, rounding="nearest")
LR = 0.05
NAMES = ("weight", "bias", "momentum", "bias_momentum")


def problem(
    batch, n_features, n_labels, fan_in, group_size, positives=0.1, repeated=False, momentum=True
):
    random = torch.Generator().manual_seed(batch + n_labels)
    groups = -(-n_labels // group_size)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    if repeated:
        index = torch.randint(n_features, (groups, fan_in), generator=random)
    else:
        index = torch.rand(groups, n_features, generator=random).topk(fan_in).indices
    target = torch.rand(n_labels, batch, generator=random) < positives
    label, row = target.nonzero(as_tuple=True)
    found = {
        "features": normal(batch, n_features),
        "weight": normal(n_labels, fan_in) / fan_in**0.5,
        "index": index.int(),
        "bias": normal(n_labels),
        "momentum": normal(n_labels, fan_in) if momentum else None,
        "bias_momentum": normal(n_labels) if momentum else None,
        "label": label.int(),
        "row": row.int(),
    }
    return {k: v if v is None else v.to(DEVICE) for k, v in found.items()}


def cast(p, dtype):
    return {k: v.to(dtype) if v is not None and v.is_floating_point() else v for k, v in p.items()}


def state_of(p):
    return LayerState(*(p[name] for name in NAMES))


def run(kernel, p, group_size, sgd=SGD, context=StepContext(LR, 1, 2), **options):  # noqa: B008
    """loss, dx and the updated state of `kernel` on a copy of the problem."""
    own = {k: None if v is None else v.clone() for k, v in p.items()}
    pairs = Positives(own["label"], own["row"])
    loss, grad = kernel(
        own["features"],
        state_of(own),
        own["index"],
        pairs,
        context,
        sgd,
        group_size=group_size,
        **options,
    )
    return {"loss": loss, "dx": grad, **{k: own[k] for k in NAMES}}


def naive(p, group_size):
    """What plain torch makes of the same numbers, products in the same dtype."""
    pairs = Positives(p["label"], p["row"])
    return reference.fused_step(
        p["features"], state_of(p), p["index"], pairs, LR, SGD, group_size=group_size
    )


def oracle(p, group_size):
    return naive(cast(p, torch.float64), group_size)


def error(got, want):
    return float((got.double() - want).norm() / want.norm().clamp(min=1e-30))


TINY = {torch.float32: 2e-6, torch.bfloat16: 2e-3, torch.float16: 3e-4}
"""errors of single roundings, below which no kernel is asked to be"""


def within(got, plain, want, dtype):
    """Whether an error is no larger than 1.5 times that of plain torch at the same dtype."""
    return error(got, want) <= max(1.5 * error(plain, want), TINY[dtype])
