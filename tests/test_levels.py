"""The levels of the package: a module imports from below its own level, and components never one another."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rectoolkit"
LEVELS = [
    {"__init__", "errors", "atomic", "heap", "watch"},
    {"registry", "arrays"},
    {"data", "metrics"},
    {"codes"},
    {"kernels"},
    {"index", "graph", "fold"},
    {"float_index", "export", "approximate", "neighbours"},
    {"encoders", "quantizers", "losses", "samplers"},
    {"recipe", "model", "evaluate"},
    {"run"},
    {"train"},
    {"identity"},
    {"execute", "lists"},
    {"compare", "bench", "tune", "doctor", "estimator"},
    {"terminal", "events"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
COMPONENTS = {"encoders", "quantizers", "losses", "samplers"}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_at_run_time(path: Path) -> set[str]:
    """The parts of the package that a file imports outside ``if TYPE_CHECKING``."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rectoolkit":
            rest = node.module.split(".")[1:]
            found.update(rest[:1] or [alias.name for alias in node.names])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return {name for name in found if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    part = part_of(path)
    assert part in LEVEL, f"{part} has no level: add it to LEVELS where it belongs"
    for imported in imports_at_run_time(path):
        if imported != part:
            assert LEVEL[imported] <= LEVEL[part], f"{path.name} imports {imported} from above its level"
            assert not {part, imported} <= COMPONENTS or imported == "losses", f"{part} imports {imported}"


TORCH_FREE = [
    "codes",
    "index",
    "metrics",
    "evaluate",
    "float_index",
    "approximate",
    "fold",
    "neighbours",
    "data",
    "run",
    "cli",
]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_serving_needs_neither_torch_nor_dgl(module: str) -> None:
    heavy = {"torch", "dgl", "numba", "pandas", "pyarrow"}
    code = f"import sys, rectoolkit.{module}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
