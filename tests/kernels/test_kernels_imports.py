"""`haste.kernels` could be a package of its own; of haste's modules import-linter sees to it (pyproject.toml)."""

import ast
import sys
from pathlib import Path

import haste.kernels

ALLOWED = {"haste", "torch", "triton", "numpy", *sys.stdlib_module_names}


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def test_no_packages_but_torch_and_triton_are_imported():
    for path in Path(haste.kernels.__file__).parent.rglob("*.py"):
        assert imported(path) <= ALLOWED, path
