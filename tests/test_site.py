"""The pages of docs/ as a site: it builds without warnings, its code runs, its tables say what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest

from rectoolkit.recipe import Recipe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    for package in ("material", "latex2mathml"):
        pytest.importorskip(package, reason="needs what builds the site: pip install 'rectoolkit[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text()
        assert "arithmatex" not in text, f"a formula in {page.parent.name} did not become MathML"
        assert "&#x00026;</mo>" not in text, f"an alignment in {page.parent.name} did not become MathML"
        loaded = re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(https?:[^"' >]+)""", text)
        assert not loaded, f"{page.parent.name} loads {loaded} from elsewhere"


RECTOOL = """#!/bin/sh
[ "$1" = run ] && set -- "$@" --set 'dataset.path="{data}"' --set train.epochs=1
exec "{python}" -m rectoolkit.cli "$@"
"""


@pytest.mark.parametrize("page", ["quickstart", "hqgnn", "custom_quantizer"])
def test_the_code_of_a_page_runs_in_its_order(page: str, small_data: Path, tmp_path: Path) -> None:
    """All of it, in one folder; runs train for one epoch on little data.

    Neighbouring blocks of one language go on from one another. Python that begins with a comment ``# name.py`` is
    saved under that name, as the page says. Blocks right under an HTML comment are left to those who read it.
    """
    for name in ("recipes", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = {"rectool": RECTOOL, "python": '#!/bin/sh\nexec "{python}" "$@"\n'}
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        (tmp_path / "bin" / name).write_text(script.format(python=sys.executable, data=small_data))
        (tmp_path / "bin" / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    around = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    block = r"^(?<!-->\n)```(python|bash)\n(.*?)^```"
    found = re.findall(block, (DOCS / f"{page}.md").read_text(), re.M | re.S)
    for language, neighbours in groupby(found, key=itemgetter(0)):
        code = ""
        for _, part in neighbours:
            if saved := re.match(r"# (\w+\.py)\n", part):
                (tmp_path / saved[1]).write_text(part)
            else:
                code += part
        command = ["bash", "-euc", code] if language == "bash" else [sys.executable, "-c", code]
        ran = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True)
        assert ran.returncode == 0, code + ran.stdout + ran.stderr


def test_the_first_page_has_the_two_commands_of_the_readme() -> None:
    marked = re.findall(r"<!-- command: \w+ -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert re.findall(r"```bash\n(.*?)```", (DOCS / "index.md").read_text(), re.S) == marked


def test_the_table_of_recipes_says_what_the_recipes_say() -> None:
    lines = [line.strip("| ") for line in (DOCS / "recipes.md").read_text().splitlines() if line.startswith("| `")]
    shown = {cells[0].strip("`"): cells[1:] for cells in (line.split(" | ") for line in lines)}
    recipes = {path.stem: Recipe.load(path) for path in (ROOT / "recipes").glob("*.toml")}
    assert set(shown) == set(recipes), "docs/recipes.md has a row for each recipe in recipes/"
    for name, (paper, what, *parts) in shown.items():
        recipe = recipes[name]
        quantizer = recipe.sections["quantizer"]
        assert parts == [recipe.sections["encoder"]["name"], quantizer["name"], str(quantizer.get("bits", 32))], name
        assert what, name
        for word in re.findall(r"[A-Z][a-z]+ et al\.|\b(?:19|20)\d\d\b|[A-Z]{3,} (?=\d{4})", paper):
            assert word in recipe.description, f"{name}: {word!r} does not stand in the recipe's description"
