"""Code blocks of the README and the docs run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pytest
from click.testing import CliRunner

from rectoolkit.cli import main
from rectoolkit.errors import RecipeError
from rectoolkit.recipe import Recipe

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def commands() -> list[str]:
    lines = [line for path in DOCUMENTS for block in blocks(path, "bash") for line in block.splitlines()]
    found = [line.split("#")[0].strip() for line in lines if line.startswith("rectool ")]
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_every_command_in_the_documents_names_commands_and_options_that_exist(command: str) -> None:
    """Parsed by click as typed, with ``--help`` added so that nothing runs."""
    words = shlex.split(command)[1:]
    names = [word for word in words[:2] if re.fullmatch(r"[a-z]+", word)]
    group = names[:2] if names[0] == "data" else names[:1]
    result = CliRunner().invoke(main, [*group, "--help"])
    assert result.exit_code == 0, result.output
    for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", command):
        assert option in result.output, f"{option} is no option of {' '.join(group)}"


@pytest.mark.usefixtures("shipped_teachers")
@pytest.mark.parametrize("command", [c for c in commands() if " recipes/" in c])
def test_recipes_and_overrides_in_the_documents_load(command: str) -> None:
    words = shlex.split(command)
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    if any("plugins" in override for override in overrides):
        pytest.skip("run as a whole, with the plugin that the page writes")
    recipes = [word for word in words if word.endswith(".toml") and word.startswith("recipes/")]
    for name in recipes:
        for path in ROOT.glob(name):
            Recipe.load(path, overrides)


def test_the_readme_python_runs(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    subprocess.run([sys.executable, "-c", code + "assert hits.ids.tolist() == [[3], [2]]\n"], cwd=tmp_path, check=True)


def test_the_custom_encoder_runs(tmp_path: Path) -> None:
    document = ROOT / "docs" / "how-to" / "custom-encoder.md"
    (code,), (command,) = blocks(document, "python"), blocks(document, "bash")
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "fading.py").write_text(code)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    program = [sys.executable, "-m", "rectoolkit", *shlex.split(command)[1:]]
    ran = subprocess.run([*program, "--set", "train.epochs=1", "--quiet"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    wrong = subprocess.run([*program, "--set", "encoder.fade=2"], cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "encoder.fade" in wrong.stderr
    listed = [sys.executable, "-m", "rectoolkit", "list", "encoder", "--plugin", "fading"]
    assert "fading" in subprocess.run(listed, cwd=tmp_path, capture_output=True, text=True, check=True).stdout


def test_the_page_of_components_is_what_the_registries_say() -> None:
    """Mend with: rectool list --markdown > docs/reference/components.md"""
    code = "from rectoolkit.cli import main; main(['list', '--markdown'])"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "reference" / "components.md").read_text() == made


def workplace(folder: Path, run: str = "") -> dict[str, str]:
    """The environment of a folder where the pages' commands run; ``rectool run`` gets the options ``run`` besides."""
    script = f"""#!/bin/sh\n[ "$1" = run ] && set -- "$@" {run}\nexec "{sys.executable}" -m rectoolkit "$@"\n"""
    program = folder / "bin" / "rectool"
    program.parent.mkdir()
    program.write_text(script)
    program.chmod(0o755)
    for name in ("recipes", "tests"):
        (folder / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    around = {**os.environ, "PATH": path, "COLUMNS": "80", "XDG_CACHE_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    around["PYTHONPATH"] = str(ROOT)
    around.pop("RECTOOL_DATA", None)
    return around


@pytest.mark.parametrize("page", ["tutorial/first-run", "explanation/hqgnn", "how-to/custom-quantizer"])
def test_the_code_of_a_page_runs_in_its_order(page: str, small_data: Path, tmp_path: Path) -> None:
    """All of it, in one folder; runs train for one epoch on little data.

    Neighbouring blocks of one language go on from one another. Python that begins with a comment ``# name.py`` is
    saved under that name, as the page says. Blocks right under an HTML comment are left to those who read it.
    """
    around = workplace(tmp_path, f"""--set 'dataset.path="{small_data}"' --set train.epochs=1""")
    text = (ROOT / "docs" / f"{page}.md").read_text()
    found = re.findall(r"^(?<!-->\n)```(python|bash)\n(.*?)^```", text, re.M | re.S)
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


TUTORIAL = ROOT / "docs" / "how-to" / "own-data.md"
VOLATILE = re.compile(r"[\d.,]+ (?=s\b|MB\b|min\b)|(?<=queries per second).*|(?<=-)[0-9a-f]{8}\b")


def tutorial(folder: Path) -> list[tuple[str, str, bool]]:
    """Each step of the tutorial, run in ``folder``: what the page shows, what is printed, whether figures may vary.

    A step is a block of bash or python with a block of text right after it, or none.
    """
    around = workplace(folder)
    steps = []
    block = r"(<!-- output: figures vary -->\n)?```(bash|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?"
    for varies, language, code, shown in re.findall(block, TUTORIAL.read_text().split("## Large logs")[0], re.M | re.S):
        command = ["bash", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        ran = subprocess.run(
            command, cwd=folder, env=around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        printed = "".join(f"{line.rstrip()}\n" for line in ran.stdout.splitlines())
        steps.append((shown, printed, bool(varies)))
    return steps


def masked(text: str, varies: bool) -> str:
    """What must be the same on every machine: without times and speeds, and where training shows, without figures."""
    text = VOLATILE.sub("#", text)
    return (
        re.sub(r"[─━┏┓┡┩└┘┴┳╇]+", "─", re.sub(r"film-\d+|-?[\d.,]+", "#", re.sub(r" +", " ", text))) if varies else text
    )


def test_the_tutorial_prints_what_it_shows(tmp_path: Path) -> None:
    """Mend with: python tests/test_docs.py"""
    for shown, printed, varies in tutorial(tmp_path):
        assert masked(shown, varies) == masked(printed, varies)


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    for package in ("material", "latex2mathml"):
        pytest.importorskip(package, reason="needs what builds the site: pip install 'rectoolkit[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text()
        assert "arithmatex" not in text, f"a formula in {page.parent.name} did not become MathML"
        assert "<mi>&</mi>" not in text, f"an alignment in {page.parent.name} did not become MathML"
        loaded = re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(https?:[^"' >]+)""", text)
        assert not loaded, f"{page.parent.name} loads {loaded} from elsewhere"


def test_the_first_page_has_the_two_commands_of_the_readme() -> None:
    marked = re.findall(r"<!-- command: \w+ -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.S) == marked


@pytest.mark.usefixtures("shipped_teachers")
def test_the_tables_of_recipes_say_what_the_recipes_say() -> None:
    page = (ROOT / "docs" / "reference" / "recipes.md").read_text()
    lines = [line.strip("| ") for line in page.splitlines() if line.startswith("| `")]
    shown = {cells[0].strip("`"): cells[1:] for cells in (line.split(" | ") for line in lines)}
    folder = ROOT / "recipes"
    recipes = {str(path.relative_to(folder).with_suffix("")): Recipe.load(path) for path in folder.rglob("*.toml")}
    assert set(shown) == set(recipes), "docs/reference/recipes.md has a row for each recipe under recipes/"
    for name, (paper, what, *parts) in shown.items():
        recipe = recipes[name]
        quantizer = recipe.sections["quantizer"]
        assert parts == [recipe.sections["encoder"]["name"], quantizer["name"], str(quantizer.get("bits", 32))], name
        assert what, name
        for word in re.findall(r"[A-Z][a-z]+ et al\.|\b(?:19|20)\d\d\b|[A-Z]{3,} (?=\d{4})", paper):
            assert word in recipe.description, f"{name}: {word!r} does not stand in the recipe's description"


def test_links_between_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_tree_of_the_readme_names_what_is_there() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    for path in (ROOT / "rectoolkit").iterdir():
        if path.name not in ("__init__.py", "py.typed", "__pycache__"):
            assert re.search(rf"\b{re.escape(path.name)}\b", tree), f"{path.name} is missing from the README's tree"
    for name in re.findall(r"\b([a-z_]+(?:\.py|/))(?=\s|$)", tree):
        there = (ROOT / name).is_dir() or any((ROOT / "rectoolkit").rglob(name.rstrip("/")))
        assert there, f"the README's tree names {name}, which is not there"
    assert "TABLE" not in (ROOT / "README.md").read_text()


def test_the_table_of_the_readme_is_of_the_recipe_as_it_is() -> None:
    shown = re.findall(r"^hqgnn: runs/(hqgnn-\w{8})$", (ROOT / "README.md").read_text(), re.M)
    assert shown == [Recipe.load(ROOT / "recipes" / "hqgnn.toml").folder_name], "run it again and show what it prints"


def test_an_unknown_recipe_key_in_a_document_would_be_noticed() -> None:
    with pytest.raises(RecipeError):
        Recipe.load(ROOT / "recipes" / "hqgnn.toml", ["encoder.fade=0.3"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        written = TUTORIAL.read_text()
        place = 0
        for shown, printed, _ in tutorial(Path(made)):
            if printed or shown:
                place = written.index("```text\n" + shown, place) + len("```text\n")
                written = written[:place] + printed + written[place + len(shown) :]
        TUTORIAL.write_text(written)
