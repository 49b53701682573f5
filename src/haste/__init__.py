"""haste: group-shared fixed fan-in output layers for extreme multi-label classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haste._version import __version__

if TYPE_CHECKING:
    from haste.classifier import HasteClassifier

__all__ = ["HasteClassifier", "__version__"]


def __getattr__(name: str) -> Any:
    # with torch, for which `haste --help` does not wait
    if name != "HasteClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from haste.classifier import HasteClassifier

    return HasteClassifier
