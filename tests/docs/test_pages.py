"""The README and the pages describe the repository correctly: links, file tree, tables and figures."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from documents import DOCS, PAGES, ROOT, blocks

sys.path.append(str(DOCS / "hooks"))
import generated


def anchors(text: str) -> set[str]:
    """The anchors that GitHub and the site give to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[ ]", "-", re.sub(r"[^\w\- ]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if target.startswith("http"):
            continue
        path = (page.parent / target if target else page).resolve()
        made = generated.PAGES.get(os.path.relpath(path, DOCS))
        assert path.exists() or made, f"links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(made() if made else path.read_text()), f"links to {target}#{anchor}"
    for target in re.findall(r'(?:src|srcset|href)="([^"#]+)"', text):
        assert target.startswith("http") or (page.parent / target).exists(), f"links to {target}"


def test_the_tree_of_the_readme_names_what_is_there() -> None:
    (tree,) = blocks(ROOT / "README.md", "text")
    for path in (ROOT / "rectoolkit").iterdir():
        if path.name not in ("__init__.py", "py.typed", "__pycache__"):
            assert re.search(rf"\b{re.escape(path.name)}\b", tree), f"{path.name} is missing from the README's tree"
    package, *rest = tree.split("recipes/", 1)
    for name in re.findall(r"[\w.]+", package.replace("rectoolkit/", "")):
        assert (ROOT / "rectoolkit" / name).exists(), f"the README's tree names {name}, which is not there"
    for name in re.findall(r"^(\w+)/", "recipes/" + rest[0], re.M):
        assert (ROOT / name).is_dir(), f"the README's tree names {name}, which is not there"


def test_the_readme_is_short_and_has_one_table() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    assert len(re.findall(r"^\|---", text, re.M)) == 1


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    results = (DOCS / "explanation" / "results.md").read_text()
    rows = re.findall(
        r"^\| `(gowalla/[\w-]+)`(?:, [^|]*)? \| (\d+) \| (.*) \|$", (ROOT / "README.md").read_text(), re.M
    )
    assert len(rows) == 4
    for name, bits, figures in rows:
        (row,) = re.findall(rf"^\| \*\*`{name}`.*$", results, re.M)
        found = [cell.split(" ±")[0] for cell in row.strip("| ").split(" | ")]
        recall20, ndcg20, recall50, seconds = figures.split(" | ")
        assert [bits, recall20, ndcg20, recall50, seconds] == [found[i] for i in (2, 3, 4, 5, -1)], name


def test_the_first_page_has_the_commands_of_the_readme() -> None:
    marked = re.findall(r"<!-- command: \w+ -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(marked) == 2
    assert blocks(DOCS / "index.md", "bash") == marked


def test_the_figure_shows_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew with: python docs/images/accuracy.py"""
    monkeypatch.syspath_prepend(str(DOCS / "images"))
    import accuracy

    for scheme in accuracy.COLOURS:
        drawn = (DOCS / "images" / f"accuracy-{scheme}.svg").read_text()
        for label in accuracy.labels().values():
            for line in label.splitlines():
                assert line in drawn, f"accuracy-{scheme}.svg lacks '{line}'"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_figures_are_written_with_their_zero(page: Path) -> None:
    prose = re.sub(r"^```.*?^```|`[^`]*`|\$[^$]*\$", "", page.read_text(), flags=re.M | re.S)
    assert not re.findall(r"(?<![\w.)/])[+-]?\.\d+\b", prose)


def test_paths_named_in_code_recipes_and_pages_exist() -> None:
    path_like = re.compile(r"\b((?:docs|rectoolkit|tests|recipes)/[a-z0-9_/-]+\.(?:md|py|toml|svg))\b")
    texts = [*PAGES, ROOT / "mkdocs.yml"]
    for folder in ("rectoolkit", "recipes", "datasets"):
        texts += [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".toml")]
    for text in texts:
        for path in path_like.findall(text.read_text()):
            assert (ROOT / path).exists() or path.removeprefix("docs/") in generated.PAGES, f"{text.name} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_blank_line_ends_each_table(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    assert not re.findall(r"^\|.*\|\n(?!\||\n)(.+)", prose, re.M)


def test_the_walk_through_a_run_names_files_that_exist() -> None:
    walk = (ROOT / "CONTRIBUTING.md").read_text().split("## What `rectool run` does")[1].split("\n## ")[0]
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", walk):
        found = (ROOT / name).exists() or any((ROOT / "rectoolkit").rglob(name.rstrip("/")))
        assert found, f"the walk names {name}"
    assert walk.count("↑") - 1 == 8, "CONTRIBUTING.md says how often the walk returns to an earlier folder"
    assert "there are eight" in walk
