"""The files of a comparison: the page, the charts, and what is left out without the optional parts."""

from __future__ import annotations

import itertools
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from command_line import rectool

from rectoolkit.compare.charts import (
    COLOURS,
    STYLE,
    Series,
    _plot,
    by_activity,
    by_popularity,
    draw,
    groups_of,
    pareto_front,
)
from rectoolkit.compare.figures import Comparison
from rectoolkit.compare.page import as_html
from rectoolkit.compare.tables import cells


class Page(HTMLParser):
    """Fails where a tag closes that is not open, and where an id stands twice; counts tags, keeps text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.counts: dict[str, int] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        for name, value in attrs:
            assert name != "src"
            assert "href" not in name or str(value).startswith("#")
            assert name != "id" or value not in self.ids
            self.ids |= {str(value)} if name == "id" else set()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_loads_nothing(place: Path, compared: Comparison) -> None:
    html = (place / "out" / "report.html").read_text()
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    assert page.counts["svg"] == page.counts["figure"] == 5
    assert not re.search(r"https?:|@import|url\((?!#)|<script|nan", html)
    assert "prefers-color-scheme: dark" in html
    assert "* if both are below 0.05" in html
    for cell in itertools.chain(*cells(compared)[1]):
        assert cell in page.text


def test_colours_of_the_page_are_variables_with_a_light_and_a_dark_shade(place: Path) -> None:
    style, *charts = (place / "out" / "report.html").read_text().split("<svg")
    for chart in charts:
        assert set(re.findall(r"#[0-9a-f]{6}\b", chart)) <= {"#000000", "#ffffff"}, "a colour that no style changes"
        assert {"var(--ink)", "var(--soft)", "var(--series-0)"} <= set(re.findall(r"var\([a-z0-9-]+\)", chart))
    for name, shades in COLOURS.items():
        assert re.findall(rf"--{name}: (#[0-9a-f]{{6}});", style) == list(shades)


def test_names_are_escaped_in_the_page(compared: Comparison) -> None:
    rows = tuple(replace(row, label=f"<b>{row.label} $x$") for row in compared.rows)
    strange = replace(compared, rows=rows, plan=replace(compared.plan, baseline=None))
    page = Page()
    page.feed(as_html(strange, draw(strange)))
    assert "b" not in page.counts
    assert page.text.count("<b>coded $x$") == 1 + 5  # in the table and in every legend


def test_charts_are_written_for_a_paper(place: Path, compared: Comparison) -> None:
    names = ["accuracy-memory", "validation", "loss", "user-activity", "item-popularity"]
    assert sorted(path.name for path in (place / "out" / "charts").iterdir()) == sorted(
        f"{name}.{kind}" for name in names for kind in ("svg", "pdf")
    )
    for chart, again in zip(draw(compared), draw(compared), strict=True):
        assert chart.files() == again.files()
        assert ElementTree.parse(place / "out" / "charts" / f"{chart.name}.svg").getroot().tag.endswith("svg")
        assert (place / "out" / "charts" / f"{chart.name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(("name", "count"), [("ste", 1), ("ste bits=1", 20), ("a-name " * 12, 9), ("x" * 130, 3)])
def test_the_legend_stays_within_the_chart(name: str, count: int) -> None:
    with mpl.rc_context(STYLE):
        figure, axes = _plot([Series(f"{name}{n}", n, [(0.0, 1.0), (1.0, 2.0)]) for n in range(count)], "x", "y")
        figure.draw_without_rendering()
    legend, plot, whole = (part.get_window_extent() for part in (figure.legends[0], axes, figure))
    assert whole.x0 <= legend.x0
    assert legend.x1 <= whole.x1
    assert whole.y0 <= legend.y0 <= legend.y1 <= plot.y0
    assert plot.height > 1.8 * figure.dpi  # inches, however long the legend is


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_without_the_optional_parts_the_tables_are_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("charts", "page"):
        monkeypatch.delitem(sys.modules, f"rectoolkit.compare.{name}", raising=False)
    result = rectool("compare", place / "coded.toml", "--runs", place / "runs", "--device", "cpu", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.csv", "table.csv", "table.md"]
    told = " ".join(result.output.split())
    assert f"report.html and charts/ are left out: the report needs {module}" in told
    assert "pip install 'rectoolkit[report]'" in told


def test_pareto_front_against_all_pairs() -> None:
    draws = np.random.default_rng(1).integers(0, 8, (40, 2))
    points = [(float(x), float(y)) for x, y in draws]
    beaten = [any((x <= a and y >= b) and (x, y) != (a, b) for x, y in points) for a, b in points]
    assert pareto_front(points) == sorted({p for p, out in zip(points, beaten, strict=True) if not out})


def test_breakdowns_against_loops(compared: Comparison) -> None:
    dataset, run = compared.plan.dataset, compared.rows[0].runs[0]
    items = groups_of(dataset.train.item_degrees, dataset.test.item_degrees)
    users = groups_of(dataset.train.user_degrees, dataset.test.user_degrees)
    assert 2 <= len(items.names) <= 5
    assert all(np.diff(items.group[np.argsort(dataset.train.item_degrees, kind="stable")]) >= 0)
    found, total = np.zeros(len(items.names)), np.zeros(len(items.names))
    for user in range(dataset.num_users):
        best = set(run.recommend(user, 10).ids[0].tolist())
        for item in dataset.test.row(user).tolist():
            total[items.group[item]] += 1
            found[items.group[item]] += item in best
    assert by_popularity(run, dataset, 10, items) == pytest.approx(found / total)
    evaluation = run.per_user()
    means = by_activity([run], "recall@10", users)
    for number in range(len(users.names)):
        chosen = [
            v for u, v in zip(evaluation.users, evaluation.values["recall@10"], strict=True) if users.group[u] == number
        ]
        assert means[number] == pytest.approx(np.mean(chosen))
