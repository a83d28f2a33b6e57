"""The report: one HTML file with the table and the charts, nothing loaded from anywhere, light and dark.

Charts: accuracy against bits per node with the Pareto front; learning curves; accuracy by users' activity and by items'
popularity. The table stands first, for it holds every figure that the charts show.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.compare.breakdown import by_activity, by_popularity, groups_of
from rectoolkit.compare.charts import COLOURS, Series, lines, scatter
from rectoolkit.compare.tables import cells, leading, remarks
from rectoolkit.evaluation.metrics import parse
from rectoolkit.runs.layout import read_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rectoolkit.compare.figures import Comparison, Figures

LIGHT = ("#1f6fb4", "#c4501b", "#2e8540", "#8e44ad", "#a67c00", "#c2185b", "#00808a", "#5d6770")
DARK = ("#6cb2f0", "#f4915e", "#6fca82", "#c792ea", "#e0bb4a", "#f57fb0", "#4fd0d8", "#aab4bd")
STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1d2126; --soft: #5b636b; --rule: #d9dde1;
  --head: #f3f5f7; %s }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --ink: #e6e9ec; --soft: #a0a8b0; --rule: #343a40; --head: #1e2226; %s }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 84rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .3rem 0 1rem }
h2 { font-size: 1.05rem; margin: 0 0 .2rem }
p, li { color: var(--soft); font-size: .9rem; margin: 0 0 .4rem; overflow-wrap: anywhere }
ul { padding-left: 1.1rem }
.table { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px; margin: 0 0 .8rem }
table { border-collapse: collapse; width: 100%%; font-size: .82rem; font-variant-numeric: tabular-nums }
th, td { padding: .4rem .4rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule) }
th { background: var(--head); font-weight: 600; white-space: normal; vertical-align: bottom }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--ground) }
th:first-child { background: var(--head) }
tr:last-child td { border-bottom: 0 }
tr.baseline td { font-style: italic }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%%, 26rem), 1fr)); gap: 1.6rem 2rem;
  margin-top: 1.6rem }
figure { margin: 0; min-width: 0 }
svg { display: block; width: 100%%; height: auto; font: 12px system-ui, sans-serif }
.grid { stroke: var(--rule) } .axis { stroke: var(--soft) }
.tick { fill: var(--soft); font-size: 11px } .title { fill: var(--ink) }
.label { fill: var(--c); paint-order: stroke; stroke: var(--ground); stroke-width: 3px }
.dot { fill: var(--c) } .lead { stroke: var(--c); stroke-width: .7; opacity: .6 }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round }
.front { fill: none; stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 5 4 }
"""


def as_html(comparison: Comparison) -> str:
    """The whole page."""
    dataset, lead = comparison.plan.dataset, leading(comparison)
    title = f"{len(comparison.rows)} recipes on {dataset.name}"
    colours = [" ".join(f"--s{place}: {c};" for place, c in enumerate(palette)) for palette in (LIGHT, DARK)]
    figures = "".join(
        f"<figure><h2>{escape(head)}</h2><p>{escape(text)}</p>{chart}</figure>"
        for head, text, chart in (*_accuracy(comparison, lead), *_curves(comparison), *_breakdowns(comparison, lead))
    )
    notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(comparison))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE % tuple(colours)}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n"
        f'<div class="table" tabindex="0">{_table(comparison)}</div>\n<ul>{notes}</ul>\n'
        f'<div class="charts">{figures}</div></body></html>\n'
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, value) that no other beats: as cheap or cheaper and better, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def _table(comparison: Comparison) -> str:
    heads, rows = cells(comparison)
    body = []
    for row in rows:
        mark = ' class="baseline"' if comparison.has_baseline and row[0] == comparison.plan.baseline else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _accuracy(comparison: Comparison, metric: str) -> list[tuple[str, str, str]]:
    points = [(row.bits_per_node, row.accuracy[metric].mean) for row in comparison.rows]
    series = [
        Series(row.label, place, (point,))
        for place, (row, point) in enumerate(zip(comparison.rows, points, strict=True))
    ]
    front = pareto_front(points)
    text = "Everything stored for a user or an item, scales and offsets too."
    if len(front) > 1:
        text += " The dashed line is the Pareto front."
    chart = scatter(series, front, "bits per node", metric)
    return [(f"{metric} against memory", text, chart)]


def _curves(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Validation where every row has the same monitor, else the training loss of those that have none."""
    monitors = {recipe["train"]["monitor"] for row in comparison.plan.rows for recipe in row.recipes}
    monitor = monitors.pop() if len(monitors) == 1 else None
    charts = []
    validated = _series(comparison, monitor) if monitor else []
    if validated:
        text = "On the share of train that is held out, ranked from the packed codes; mean over seeds."
        charts.append((f"Learning: validation {monitor}", text, lines(validated, "epoch", f"validation {monitor}")))
    losses = _series(comparison, None)
    if losses:
        text = "Each over its own first value, since losses of different kinds have different scales; mean over seeds."
        charts.append(("Learning: loss", text, lines(losses, "epoch", "loss / first loss")))
    return charts


def _series(comparison: Comparison, monitor: str | None) -> list[Series]:
    """The rows' learning curves: of the monitored metric, or of the loss over its first value."""
    series = []
    for place, row in enumerate(comparison.rows):
        curves: dict[int, list[float]] = {}
        for run in row.runs:
            log = read_log(run.path)
            for entry in log:
                value = entry["loss"] / log[0]["loss"] if monitor is None else entry.get("validation", {}).get(monitor)
                if value is not None and math.isfinite(value):
                    curves.setdefault(entry["epoch"], []).append(value)
        points = [(float(e), float(np.mean(curves[e]))) for e in sorted(curves) if len(curves[e]) == len(row.runs)]
        if points:
            series.append(Series(row.label, place, tuple(points)))
    return series


def _breakdowns(comparison: Comparison, metric: str) -> list[tuple[str, str, str]]:
    dataset, k = comparison.plan.dataset, parse(metric).k
    users = groups_of(dataset.train.user_degrees, dataset.test.user_degrees)
    items = groups_of(dataset.train.item_degrees, dataset.test.item_degrees)
    active = _grouped(comparison.rows, [by_activity(row.runs, metric, users) for row in comparison.rows])
    popular = _grouped(comparison.rows, [by_popularity(row.runs[0], dataset, k, items) for row in comparison.rows])
    return [
        (
            f"{metric} by user activity",
            "Users by their train interactions, groups of about equal test interactions; mean over seeds.",
            lines(active, "train interactions of the user", metric, users.names, zero=True),
        ),
        (
            f"Found at {k} by item popularity",
            f"Share of an item group's test interactions among their user's best {k}; first seed of each recipe.",
            lines(popular, "train interactions of the item", f"share found at {k}", items.names, zero=True),
        ),
    ]


def _grouped(rows: Sequence[Figures], values: Sequence[Sequence[float]]) -> list[Series]:
    series = []
    for place, (row, heights) in enumerate(zip(rows, values, strict=True)):
        points = tuple((float(x), y) for x, y in enumerate(heights) if math.isfinite(y))
        series.append(Series(row.label, place, points))
    return series


assert len(LIGHT) == len(DARK) == COLOURS
