"""``rectool show`` and ``rectool list``: recipes by name, filled, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import rectool

from rectoolkit.recipe import Recipe
from rectoolkit.recipe.files import shipped_recipes, tomllib


def test_a_recipe_is_shown_filled_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("hqgnn", "gowalla/hqgnn-1bit", "recipes/gowalla/hqgnn-1bit.toml"):
        shown = rectool("show", name, "--toml")
        assert shown.exit_code == 0
        assert tomllib.loads(shown.output) == Recipe.load(name).as_dict()
    table = rectool("show", "hqgnn", "--set", "quantizer.bits=3").output
    for told in ('[quantizer] name = "gste"', "bits per dimension", "curvature", "a whole number"):
        assert told in table
    for command in ("show", "run"):
        unknown = rectool(command, "hqgn")
        assert unknown.exit_code == 2
        assert "No recipe named 'hqgn'. Did you mean 'hqgnn'? Run `rectool list recipes`" in unknown.output


def test_recipes_are_listed_with_their_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rectoolkit.terminal.console.width", 400)
    lines = rectool("list", "recipes").output.splitlines()
    for name in shipped_recipes():
        recipe = Recipe.load(name)
        (line,) = [line for line in lines if f"│ {name} " in line]
        assert recipe["dataset"]["name"] in line
        assert recipe.description in line
    wrong = rectool("list", "recipe")
    assert (wrong.exit_code, "did you mean 'recipes'" in wrong.output) == (2, True)


@pytest.mark.parametrize("command", ["show hqgnn", "show gowalla/hqgnn-1bit --toml", "list", "list recipes"])
def test_nothing_heavy_is_imported(command: str) -> None:
    heavy = {"torch", "dgl", "numba", "pandas", "pyarrow", "sklearn", "scipy", "matplotlib"}
    code = (
        "import sys\nfrom rectoolkit.cli import main\n"
        f"main({command.split()}, standalone_mode=False)\n"
        f"sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
