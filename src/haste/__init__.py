"""haste: group-shared fixed fan-in output layers for extreme multi-label classification."""

__version__ = "0.1.0"
