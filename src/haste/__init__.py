"""haste: group-shared fixed fan-in output layers for extreme multi-label classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haste.classifier import HasteClassifier

__version__ = "0.1.0"
__all__ = ["HasteClassifier"]


def __getattr__(name: str) -> Any:
    # with torch, for which `haste --help` does not wait
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from haste.classifier import HasteClassifier

    return HasteClassifier
