"""The commands and the code of the README and the pages run as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import documents
import pytest
from documents import CONTINUES, DOCS, ROOT, TUTORIAL, Step, blocks, commands, run_page

from rectoolkit.cli import main
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.files import shipped_recipes, toml_value

# pages whose commands take minutes are only parsed
RUN = [
    "how-to/comparing",
    "how-to/custom-encoder",
    "how-to/custom-metric",
    "how-to/custom-quantizer",
    "how-to/estimator",
    "how-to/exporting",
    "how-to/installing",
    "how-to/new-users",
    "how-to/own-data",
    "how-to/serving",
    "explanation/hqgnn",
    "reference/file-format",
]
SLOW = {  # they train, or compile
    "how-to/comparing", "how-to/custom-encoder", "how-to/custom-metric", "how-to/custom-quantizer", "how-to/installing",
}  # fmt: skip


@pytest.mark.parametrize("command", commands())
def test_every_command_names_commands_and_options_that_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    found: click.Command = main
    while isinstance(found, click.Group):
        assert words[0] in found.commands, f"{words[0]} is not a command"
        found = found.commands[words.pop(0)]
    known = {name for option in found.params for name in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}
    for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", command):
        assert option in known, f"{option} is not an option of {found.name}"


def recipes_named(command: str) -> list[str | Path]:
    """The recipes that a command names, by path or by name."""
    words = shlex.split(command)
    return [p for w in words if w.endswith(".toml") for p in ROOT.glob(w)] + [
        w for w in words if w in shipped_recipes()
    ]


OVERRIDDEN = [c for c in commands() if recipes_named(c) and "plugins" not in c and "quantizer.bits=9" not in c]


@pytest.mark.parametrize("command", OVERRIDDEN)
def test_recipes_load_with_the_overrides_of_each_command(command: str) -> None:
    words = shlex.split(command)
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    for name in recipes_named(command):
        recipe = Recipe.load(name, overrides)
        for override in overrides:
            key, value = override.split("=", 1)
            section, _, setting = key.rpartition(".")
            filled = recipe[section][setting] if section else getattr(recipe, setting)
            assert filled == toml_value(value), f"{name}: {override}"


def check(steps: list[Step]) -> None:
    assert steps
    for step in steps:
        assert step.failed == ("error: " in step.shown), step.code + step.printed
        if step.compared:
            assert step.masked(step.shown) == step.masked(step.printed), step.code


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Step]]:
    """The folder of the tutorial and its steps, run once for the pages that continue it."""
    folder = tmp_path_factory.mktemp("tutorial")
    return folder, run_page(TUTORIAL, folder)


def test_the_tutorial_prints_what_it_shows(tutorial: tuple[Path, list[Step]]) -> None:
    """Renew the outputs with: python tests/documents.py"""
    check(tutorial[1])


@pytest.mark.parametrize("page", [pytest.param(p, marks=[pytest.mark.slow] if p in SLOW else []) for p in RUN])
def test_a_page_prints_what_it_shows(page: str, tutorial: tuple[Path, list[Step]], tmp_path: Path) -> None:
    """Renew the outputs with: python tests/documents.py docs/PAGE.md"""
    path = DOCS / f"{page}.md"
    check(run_page(path, tmp_path, tutorial[0] / "runs" if CONTINUES.search(path.read_text()) else None))


def test_every_page_with_code_is_run_or_known_to_take_minutes() -> None:
    minutes = {"index", "explanation/results", "explanation/benchmarks", "how-to/tuning", "notes/log"}
    code = {p for p in documents.PAGES if DOCS in p.parents and (blocks(p, "bash") or blocks(p, "python"))}
    named = {path.relative_to(DOCS).with_suffix("").as_posix() for path in code - {TUTORIAL}}
    assert named - set(RUN) == minutes & named
    assert set(RUN) <= named


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    subprocess.run([sys.executable, "-c", code + "assert hits.ids.tolist() == [[3], [2]]\n"], cwd=tmp_path, check=True)


def test_components_of_ones_own_stay_short() -> None:
    for page, limit in (("custom-encoder", 25), ("custom-quantizer", 25), ("custom-metric", 10)):
        code = blocks(DOCS / "how-to" / f"{page}.md", "python")[0]
        assert len([line for line in code.splitlines() if line.strip()]) <= limit, page
