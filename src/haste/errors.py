"""The three errors a user meets. Each message says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HasteError(Exception):
    """Base of all errors that are the input's fault; the command line prints the message alone."""

    exit_code = 2
    """of the command"""


class ConfigError(HasteError):
    """A setting that is unknown, out of range or contradicts another."""


class DataError(HasteError):
    """A file that is missing, damaged, stale or not what it should be."""


class KernelError(HasteError):
    """An argument that a kernel or layer cannot take, named with what was given and what is allowed."""


class TrainingError(HasteError):
    """A run that cannot go on, such as a loss that is no longer finite."""


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint naming the nearest known word, for the end of an error message.

    >>> suggest("fanin", ["fan_in", "group_size"])
    " Did you mean 'fan_in'?"
    """
    known = sorted(map(str, known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(known)}."
