"""The `haste` command: one subcommand a stage, files in, files out."""

from __future__ import annotations

from haste.cli.command import app, main

__all__ = ["app", "main"]
