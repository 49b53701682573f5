"""YAML as it is read everywhere: safe, each key once in its mapping, aliases that stay small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from haste.errors import DataError

MAX_ALIASED = 10_000
"""nodes that the aliases of one file may stand for; nested ones double with every line"""


def parse_yaml(text: str | bytes, where: Path | str) -> Any:
    """Plain values from YAML; raises DataError with `where` and the line for what is no YAML, a key that
    a mapping has twice (of which one would be lost) and aliases that stand for too much."""
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{where}{line}: {error.problem or error.context}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise DataError(f"{where}: not YAML ({type(error).__name__}: {what}).") from error


class _Loader(yaml.SafeLoader):
    """SafeLoader, refusing while nodes are composed, before any value is made of them."""

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self.nodes = 0
        """composed so far, each alias counted as all that it stands for"""
        self.aliased = 0
        self.sizes: dict[int, int] = {}
        """id of a node -> nodes in it"""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self.nodes
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            # not known yet where the alias stands within what it names
            size = self.sizes.get(id(node), MAX_ALIASED)
            self.nodes += size
            self.aliased += size
            if self.aliased >= MAX_ALIASED:
                raise _refusal(
                    f"the alias *{event.anchor}, with those before it, stands for {MAX_ALIASED:,} values "
                    "or more; write them out",
                    event.start_mark,
                )
        else:
            self.nodes += 1
            self.sizes[id(node)] = self.nodes - before
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, Any], yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            earlier = first.setdefault((key.tag, key.value), key)
            if earlier is not key:
                raise _refusal(
                    f"the key {key.value!r} is there twice, first in line "
                    f"{earlier.start_mark.line + 1}; make them one",
                    key.start_mark,
                )
        return node


def _refusal(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
