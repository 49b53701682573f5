"""`haste.kernels` could be a package of its own."""

import ast
import sys
from pathlib import Path

import haste.kernels

ALLOWED = {"torch", "triton", "numpy", "haste.errors", *sys.stdlib_module_names}


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


def test_nothing_else_of_haste_is_imported():
    root = Path(haste.kernels.__file__).parent
    for path in root.rglob("*.py"):
        others = {name for name in imported(path) if not name.startswith("haste.kernels")}
        assert {name for name in others if name.startswith("haste")} <= {"haste.errors"}, path
        assert {name.partition(".")[0] for name in others} - {"haste"} <= ALLOWED, path
