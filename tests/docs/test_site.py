"""The site builds without warnings or a network, and its generated pages are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from documents import ROOT

import rectoolkit
from rectoolkit.cli import main
from rectoolkit.recipe.files import tomllib
from rectoolkit.recipe.registry import REGISTRIES, metrics


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    for package in ("material", "latex2mathml", "mkdocstrings"):
        pytest.importorskip(package, reason="needs what builds the site: pip install 'rectoolkit[docs]'")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def text_of(site: Path, page: str) -> str:
    html = (site / page / "index.html").read_text()
    return unescape(re.sub(r"<[^>]+>", "", html.split("<article", 1)[1].split("</article>", 1)[0]))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(https?:[^"' >]+)""", page.read_text())
        assert not loaded, f"{page.parent.name} loads {loaded} from elsewhere"


def test_formulas_become_mathml(site: Path) -> None:
    assert "<math" in (site / "explanation" / "hqgnn" / "index.html").read_text()
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "arithmatex" not in text, f"a formula in {page.parent.name} did not become MathML"
        assert "<mi>&</mi>" not in text, f"an alignment in {page.parent.name} did not become MathML"


def test_the_notes_are_linked_at_the_foot_and_not_in_the_menu(site: Path) -> None:
    html = (site / "tutorial" / "first-run" / "index.html").read_text()
    menu, foot = html.split('<footer class="md-footer"')
    for note in ("notes/log/", "notes/decisions/"):
        assert note in foot
        assert note not in menu
        assert (site / note / "index.html").exists()


def test_the_python_page_describes_every_public_name(site: Path) -> None:
    html = (site / "reference" / "python" / "index.html").read_text()
    for name in set(rectoolkit.__all__) - {"__version__"}:
        (section,) = re.findall(rf'id="rectoolkit\.{name}"(.*?)(?=id="rectoolkit\.[A-Z]|$)', html, re.S)
        assert re.search(r"<p>\w", section), f"{name} has no description"


def test_the_component_pages_have_every_component_and_setting(site: Path) -> None:
    for registry in (*REGISTRIES.values(), metrics):
        plural = {"loss": "losses"}.get(registry.kind, registry.kind + "s")
        text = text_of(site, f"reference/{plural}")
        for name in registry.names():
            (section,) = re.findall(rf"^{name}¶$(.*?)(?=^\w+¶$|\Z)", text, re.M | re.S)
            assert registry.about(name).replace("``", "")[:40] in section
            for key in registry.schema(name).model_fields:
                assert key in section, f"{name}.{key}"


def test_the_page_of_recipes_has_every_recipe_with_its_figures(site: Path) -> None:
    html = (site / "reference" / "recipes" / "index.html").read_text()
    rows = dict(re.findall(r"<tr>\s*<td><code>(.*?)</code></td>(.*?)</tr>", html, re.S))
    paths = {str(p.relative_to(ROOT / "recipes").with_suffix("")): p for p in (ROOT / "recipes").rglob("*.toml")}
    assert set(rows) == set(paths)
    for name, path in paths.items():
        for metric, value in tomllib.loads(path.read_text()).get("expect", {}).items():
            assert f"<td>{value:.4f}</td>" in rows[name], f"{name}: {metric}"


def test_the_page_of_commands_has_every_command_and_option(site: Path) -> None:
    text = text_of(site, "reference/commands")
    groups = {"rectool": main, "rectool data": main.commands["data"]}
    for path, group in groups.items():
        for name, command in group.commands.items():
            (section,) = re.findall(rf"^{path} {name}¶$(.*?)(?=^rectool[\w ]*¶$|\Z)", text, re.M | re.S)
            for parameter in command.params:
                assert parameter.opts[0] in section or parameter.name.upper() in section


def test_the_page_of_data_sets_has_every_card(site: Path) -> None:
    text = text_of(site, "reference/datasets")
    for path in (ROOT / "datasets").glob("*.toml"):
        counts = tomllib.loads(path.read_text()).get("counts", {})
        assert re.search(rf"^{path.stem}¶$", text, re.M)
        assert all(f"{value:,}" in text for value in counts.values())
