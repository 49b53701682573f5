"""What `--only` picks: things whose names are parts joined by slashes."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from haste.errors import ConfigError


class Named(Protocol):
    """What has a name such as dataset/method/preset."""

    @property
    def name(self) -> str:
        """Its parts, joined by slashes."""


Item = TypeVar("Item", bound=Named)


def select(
    items: Sequence[Item],
    only: Sequence[str],
    form: str,
    *,
    what: str = "row",
    counts: Callable[[Item, str], bool] = lambda item, pattern: True,  # noqa: ARG005
) -> list[Item]:
    """The items that one of the patterns `only` names, or all of them for no pattern, in their order.

    A pattern with a slash is of whole names, another of any part; * stands for anything. An item that
    does not count for a pattern is as if it were not there. Raises ConfigError for a pattern that names
    none, with the names' `form` and their parts; `what` is the word for an item.
    """
    for pattern in only:
        if not any(_matches(item, pattern, counts) for item in items):
            parts = {part for item in items for part in item.name.split("/")}
            raise ConfigError(
                f"--only {pattern}: no such {what}. Use {form}, * for any, or one of "
                f"{', '.join(sorted(parts))}."
            )
    patterns = only or ("*",)
    return [item for item in items if any(_matches(item, pattern, counts) for pattern in patterns)]


def _matches(item: Item, pattern: str, counts: Callable[[Item, str], bool]) -> bool:
    if not counts(item, pattern):
        return False
    if "/" in pattern:
        return fnmatch.fnmatchcase(item.name, pattern)
    return any(fnmatch.fnmatchcase(part, pattern) for part in item.name.split("/"))
