"""How dX, the gradient of the features, is summed over labels: decided here, for steps and for backward."""

from __future__ import annotations

from enum import Enum


class Route(Enum):
    """The way of dX."""

    ATOMICS = "atomics"
    """each group adds its part to one of a few copies of [H, B]; the order of the sums is not fixed"""
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

    To densify needs `unique`, no feature twice in a group, and is what `deterministic` asks for. A dense
    product was measured to be quicker where a group reads a third of the features and the batch is large,
    and not where it reads a sixth. In a step it costs more, because dz and the former weights are kept: it
    was quicker only with tiles of four warps.
    """
    if not unique:
        return Route.ATOMICS
    dense_is_faster = 3 * fan_in >= n_features and batch >= 128
    if fused:
        small = fan_in <= 64 or item_size > 2 or fan_in * group_size > 128 * 64
        dense_is_faster = dense_is_faster and not small
    return Route.DENSIFY if deterministic or dense_is_faster else Route.ATOMICS
