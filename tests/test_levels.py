"""The levels of the package: a file imports from its own level or below, components never one another, no circles."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rectoolkit"
LEVELS = [
    {"__init__", "checks", "errors", "files", "runs.layout", "runs.__init__"},
    {"recipe"},
    {"data", "evaluation.metrics"},
    {"search", "evaluation.significance"},
    {"model"},
    {"evaluation"},
    {"training"},
    {"runs"},
    {"compare", "tune", "bench"},
    {"terminal"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
COMPONENTS = ["model.encoders", "model.quantizers", "model.losses", "model.samplers"]
FILES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}


def level_of(name: str) -> int:
    """The level of the longest part of ``name`` that has one."""
    parts = name.split(".")
    known = [".".join(parts[:end]) for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in LEVEL]
    assert known, f"{name} has no level: add it to LEVELS where it belongs"
    return LEVEL[known[0]]


def imports_at_run_time(path: Path) -> set[str]:
    """The files of the package that a file imports outside ``if TYPE_CHECKING``, within functions too."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rectoolkit":
            module = node.module.removeprefix("rectoolkit").removeprefix(".")
            for alias in node.names:
                name = f"{module}.{alias.name}".removeprefix(".")
                whole = f"{module}.__init__".removeprefix(".")
                found.update(candidate for candidate in (name, f"{name}.__init__") if candidate in FILES)
                if name not in FILES and f"{name}.__init__" not in FILES:
                    found.add(module if module in FILES else whole)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down(name: str) -> None:
    for imported in imports_at_run_time(FILES[name]):
        assert level_of(imported) <= level_of(name), f"{name} imports {imported} from above its level"
        ours, theirs = ([kind for kind in COMPONENTS if part.startswith(kind)] for part in (name, imported))
        assert not (ours and theirs and ours != theirs), f"{name} imports {imported}"


def test_no_files_import_one_another_in_a_circle() -> None:
    graph = {name: imports_at_run_time(path) - {name} for name, path in FILES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


TORCH_FREE = [
    "search.codes",
    "search.packed",
    "search.float32",
    "search.inverted_lists",
    "search.neighbours",
    "evaluation.metrics",
    "evaluation.evaluate",
    "search.fold_in",
    "runs.run",
    "data",
    "recipe",
    "model.encoders.settings",
    "model.quantizers.settings",
    "model.losses.settings",
    "model.samplers.settings",
    "cli",
]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_serving_needs_neither_torch_nor_dgl(module: str) -> None:
    heavy = {"torch", "dgl", "numba", "pandas", "pyarrow"}
    code = f"import sys, rectoolkit.{module}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
