"""Which state of this code is running: it stands beside every number."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

VARIABLE = "HASTE_COMMIT"
"""of the environment: the commit, where the code was copied without its git directory"""
CHANGED = "+changes"
"""after the commit where files of the package are not as it has them"""


def code_commit() -> str | None:
    """The commit of this package's code, 40 hex digits, with CHANGED where it was edited since.

    By the environment's HASTE_COMMIT, else by git where the package is part of a checkout; else None.
    """
    return os.environ.get(VARIABLE) or _by_git(Path(__file__).parent)


@functools.cache
def _by_git(package: Path) -> str | None:
    # a package that is installed in a directory of somebody's repository is no part of that repository
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + CHANGED if _git(package, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, without the line's end; None where it fails or is not there."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
