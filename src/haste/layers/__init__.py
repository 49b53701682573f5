"""Output layers, all with the methods of `OutputLayer`, and `GroupFanInLinear`, a plain module."""

from haste.layers.dense import Dense
from haste.layers.head_tail import HeadTail
from haste.layers.linear import GroupFanInLinear
from haste.layers.sparse import Sparse

__all__ = ["Dense", "GroupFanInLinear", "HeadTail", "Sparse"]
