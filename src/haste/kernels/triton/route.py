"""The choice of the kernel that sums dX over labels, for fused steps and for backward."""

from __future__ import annotations

from enum import Enum


class Route(Enum):
    """How dX is summed."""

    ATOMICS = "atomics"
    """atomic sums into several copies of [H, B]; their order is not fixed"""
    DENSIFY = "densify"
    """chunks of weights, densified in registers, times dz; the order of the sums is fixed"""


def choose_route(
    batch: int,
    n_features: int,
    fan_in: int,
    group_size: int,
    item_size: int,
    *,
    unique: bool,
    deterministic: bool,
    fused: bool,
) -> Route:
    """The route for weights of `item_size` bytes; `fused`: within a training step.

    DENSIFY needs `unique`, no feature twice in a group, and is always taken for `deterministic`. As
    measured, a dense product is faster where a group reads a third of the features and the batch is
    large, and slower where it reads a sixth. In a fused step it costs more, because dz and the weights
    from before the update are kept: it was faster only with tiles of four warps.
    """
    if not unique:
        return Route.ATOMICS
    dense_is_faster = 3 * fan_in >= n_features and batch >= 128
    if fused:
        small = fan_in <= 64 or item_size > 2 or fan_in * group_size > 128 * 64
        dense_is_faster = dense_is_faster and not small
    return Route.DENSIFY if deterministic or dense_is_faster else Route.ATOMICS
