"""Output layers: one class a sparsity pattern, all with the same four methods, and a plain module."""

from haste.layers.dense import Dense
from haste.layers.fixed_fan_in import FixedFanIn
from haste.layers.group_fan_in import GroupFanIn
from haste.layers.head_tail import HeadTail
from haste.layers.linear import GroupFanInLinear

__all__ = ["Dense", "FixedFanIn", "GroupFanIn", "GroupFanInLinear", "HeadTail"]
