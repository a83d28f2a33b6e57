"""Charts of a comparison, drawn with matplotlib: accuracy against memory, learning curves, accuracy by group.

A recipe has the same colour and marker in every chart. Colours have names (``COLOURS``), each with a light and a dark
shade: a chart is drawn in the light ones, and in the SVG for a page they become CSS variables.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from rectoolkit.compare.tables import leading
from rectoolkit.evaluation.evaluate import USER_BLOCK
from rectoolkit.evaluation.metrics import parse
from rectoolkit.runs.layout import read_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

    from rectoolkit.compare.figures import Comparison
    from rectoolkit.data import Dataset
    from rectoolkit.runs.run import Run

    Points = list[tuple[float, float]]

COLOURS = {  # name: (light, dark)
    "ink": ("#1d2126", "#e6e9ec"),
    "soft": ("#5b636b", "#a0a8b0"),
    "rule": ("#d9dde1", "#343a40"),
    "series-0": ("#1f6fb4", "#6cb2f0"),
    "series-1": ("#c4501b", "#f4915e"),
    "series-2": ("#2e8540", "#6fca82"),
    "series-3": ("#8e44ad", "#c792ea"),
    "series-4": ("#a67c00", "#e0bb4a"),
    "series-5": ("#c2185b", "#f57fb0"),
    "series-6": ("#00808a", "#4fd0d8"),
    "series-7": ("#4d565e", "#c3ccd4"),
}
INK, SOFT, RULE, *SERIES = (light for light, _ in COLOURS.values())
MARKERS, DASHES = "osD^vP*", ("-", "--", ":")  # DASHES: one for each round of colours
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold dollar signs
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.hashsalt": "rectoolkit",  # the same chart is the same file
    "pdf.fonttype": 42,
}
WIDTH, HEIGHT, LEGEND_ROW = 4.2, 2.7, 0.18  # inches
LEGEND_LETTERS, KEY_LETTERS = 50, 6  # letters in a row of the legend, and as many as a key takes
MARKED = 6  # of a line's points
GROUPS = 5


@dataclass(frozen=True)
class Chart:
    """A chart under a ``heading``, explained by a ``caption``; ``name`` begins the names of its files."""

    name: str
    heading: str
    caption: str
    figure: Figure

    def inline_svg(self) -> str:
        """The chart as an ``<svg>`` element of an HTML page, in the page's fonts and CSS variables."""
        svg = self._drawn("svg", {"svg.fonttype": "none"}).decode()
        svg = re.sub(r"<metadata>.*?</metadata>| xmlns(:xlink)?=\"[^\"]*\"", "", svg[svg.index("<svg") :], flags=re.S)
        svg = re.sub(r'(id="|url\(#|href="#)', rf"\1{self.name}-", svg)  # several charts share the page's ids
        for name, (light, _) in COLOURS.items():
            svg = svg.replace(light, f"var(--{name})")
        return svg.replace("<svg", f'<svg role="img" aria-labelledby="{self.name}"', 1)

    def files(self) -> dict[str, bytes]:
        """The chart as an SVG and a PDF file, by their names."""
        return {
            f"{self.name}.svg": self._drawn("svg", {}, Date=None),
            f"{self.name}.pdf": self._drawn("pdf", {}, CreationDate=None),
        }

    def _drawn(self, kind: str, style: dict[Any, Any], **metadata: None) -> bytes:
        file = io.BytesIO()
        with mpl.rc_context({**STYLE, **style}):
            self.figure.savefig(file, format=kind, metadata=metadata)
        return file.getvalue()


@dataclass(frozen=True)
class Series:
    """The points (x, y) of one recipe; ``place`` chooses its colour and marker."""

    label: str
    place: int
    points: Points


@dataclass(frozen=True)
class Groups:
    """Users or items grouped by training interactions: ``group`` int64 (N,) of each, and the groups' ``names``."""

    group: npt.NDArray[np.int64]
    names: tuple[str, ...]


def draw(comparison: Comparison) -> list[Chart]:
    """Every chart that the runs have data for."""
    with mpl.rc_context(STYLE):
        return [_accuracy(comparison), *_learning(comparison), *_by_group(comparison)]


def pareto_front(points: Points) -> Points:
    """The points (cost, value) that no other beats, by rising cost: none as cheap or cheaper is better."""
    front: Points = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def groups_of(train_degrees: npt.NDArray[np.int64], test_degrees: npt.NDArray[np.int64]) -> Groups:
    """At most ``GROUPS`` ranges of training interactions, with about equal shares of the test interactions."""
    weight = np.bincount(train_degrees, weights=test_degrees)
    shares = np.cumsum(weight) / weight.sum()
    ends = np.unique(np.searchsorted(shares, np.arange(1, GROUPS) / GROUPS))
    group = np.searchsorted(ends, train_degrees)
    kept, group = np.unique(group, return_inverse=True)
    spans = [train_degrees[group == number] for number in range(len(kept))]
    names = (f"{span.min()}-{span.max()}" if span.min() < span.max() else f"{span.min()}" for span in spans)
    return Groups(group.astype(np.int64), tuple(names))


def by_activity(runs: Sequence[Run], metric: str, groups: Groups) -> list[float]:
    """The mean of ``metric`` over each group's users, averaged over the runs; NaN for a group without test users."""
    evaluations = [run.per_user() for run in runs]
    values = np.mean([evaluation.values[metric] for evaluation in evaluations], axis=0)
    return _ratios(groups, groups.group[evaluations[0].users], values)


def by_popularity(run: Run, dataset: Dataset, k: int, groups: Groups) -> list[float]:
    """The share of each item group's test interactions that are found among the user's best ``k``."""
    asked = np.flatnonzero(dataset.test.user_degrees)
    _, wanted = dataset.test.pairs()
    found = np.zeros(dataset.num_items)
    for start in range(0, len(asked), USER_BLOCK):
        block = asked[start : start + USER_BLOCK]
        ids = run.rank(block, k).ids
        found += np.bincount(ids[dataset.test.contains(block[:, None], ids)], minlength=dataset.num_items)
    times = np.bincount(wanted, minlength=dataset.num_items)
    return _ratios(groups, groups.group, found, times)


def _ratios(groups: Groups, group: npt.NDArray[np.int64], values: Any, weights: Any = None) -> list[float]:
    """The sum of ``values`` over that of ``weights`` (1 each by default) in each group."""
    sums, sizes = (np.bincount(group, weights=of, minlength=len(groups.names)) for of in (values, weights))
    return [float(s / n) if n else math.nan for s, n in zip(sums, sizes, strict=True)]


def _accuracy(comparison: Comparison) -> Chart:
    metric = leading(comparison)
    points = [(row.bits_per_node, row.accuracy[metric].mean) for row in comparison.rows]
    series = [Series(row.label, place, [points[place]]) for place, row in enumerate(comparison.rows)]
    figure, axes = _plot(series, "bits per user or item", metric, joined=False)
    front = pareto_front(points)
    if len(front) > 1:
        axes.step(*zip(*front, strict=True), where="post", color=SOFT, linestyle="--", linewidth=1, zorder=1)
    axes.set_xscale("log", base=2)
    axes.margins(0.08)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=7))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    caption = "Bits count everything stored, scales and offsets included."
    if len(front) > 1:
        caption += " The dashed line is the Pareto front."
    return Chart("accuracy-memory", f"{metric} against memory", caption, figure)


def _learning(comparison: Comparison) -> list[Chart]:
    """The validation curve, if all recipes have the same monitor, and the training loss."""
    monitors = {recipe["train"]["monitor"] for row in comparison.plan.rows for recipe in row.recipes}
    monitor = monitors.pop() if len(monitors) == 1 else None
    charts = []
    if monitor and (series := _curves(comparison, monitor)):
        figure, _ = _plot(series, "epoch", f"validation {monitor}")
        caption = "On the held-out part of the training set, ranked from the packed codes. Mean over seeds."
        charts.append(Chart("validation", f"Validation {monitor}", caption, figure))
    if series := _curves(comparison, None):
        figure, _ = _plot(series, "epoch", "loss / first loss")
        caption = "Relative to the first epoch, since different losses have different scales. Mean over seeds."
        charts.append(Chart("loss", "Training loss", caption, figure))
    return charts


def _curves(comparison: Comparison, monitor: str | None) -> list[Series]:
    """Each row's curve over the epochs that all its runs logged: of ``monitor``, or without one of the loss."""
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
            series.append(Series(row.label, place, points))
    return series


def _by_group(comparison: Comparison) -> list[Chart]:
    metric, dataset = leading(comparison), comparison.plan.dataset
    k = parse(metric).k
    users = groups_of(dataset.train.user_degrees, dataset.test.user_degrees)
    items = groups_of(dataset.train.item_degrees, dataset.test.item_degrees)
    active = {row.label: by_activity(row.runs, metric, users) for row in comparison.rows}
    popular = {row.label: by_popularity(row.runs[0], dataset, k, items) for row in comparison.rows}
    return [
        Chart(
            "user-activity",
            f"{metric} by user activity",
            "Users grouped by training interactions, with about as many test interactions each. Mean over seeds.",
            _grouped(active, users, "training interactions of the user", metric),
        ),
        Chart(
            "item-popularity",
            f"Recall at {k} by item popularity",
            f"Share of an item group's test interactions that are in their user's top {k}. First seed of each recipe.",
            _grouped(popular, items, "training interactions of the item", f"share in the top {k}"),
        ),
    ]


def _grouped(values: dict[str, list[float]], groups: Groups, x_title: str, y_title: str) -> Figure:
    series = [
        Series(label, place, [(float(x), y) for x, y in enumerate(heights) if math.isfinite(y)])
        for place, (label, heights) in enumerate(values.items())
    ]
    figure, axes = _plot(series, x_title, y_title)
    axes.set_xticks(range(len(groups.names)), groups.names)
    axes.set_ylim(bottom=0)
    return figure


def _plot(series: Sequence[Series], x_title: str, y_title: str, *, joined: bool = True) -> tuple[Figure, Axes]:
    """The series as lines, or as single markers unless ``joined``, above a legend that makes the figure higher."""
    labels = [textwrap.fill(one.label, LEGEND_LETTERS) for one in series]
    columns = max(1, min(3, len(labels), LEGEND_LETTERS // (max(map(len, labels)) + KEY_LETTERS)))
    rows = sum(label.count("\n") + 1 for label in labels[::columns])
    figure = Figure(figsize=(WIDTH, HEIGHT + LEGEND_ROW * rows), layout="constrained")
    axes = figure.subplots()
    for one, label in zip(series, labels, strict=True):
        axes.plot(
            *zip(*one.points, strict=True),
            label=label,
            color=SERIES[one.place % len(SERIES)],
            marker=MARKERS[one.place % len(MARKERS)],
            markersize=4 if joined else 6,
            markevery=max(1, len(one.points) // MARKED),
            linestyle=DASHES[one.place // len(SERIES) % len(DASHES)] if joined else "none",
        )
    axes.set(xlabel=x_title, ylabel=y_title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower left", ncols=columns)
    return figure, axes
