"""Charts as inline SVG: a few functions in place of a library, so that a report is one file of some kilobytes.

Every chart is drawn on the same canvas of 440 by 320 units, small enough that its text of 12 units is still read
on a phone, where the canvas is scaled to about 0.8. Colours are the page's: ``style="--c:var(--s3)"`` names a series,
``class="line"`` and the like say how it is drawn. Labels stand at the end of what they name, pushed apart where
they would overlap, so that no legend has to be matched by colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 440, 320
LEFT, TOP, BOTTOM = 62, 14, 44  # room for ticks, nothing, axis title; at the right, for the labels that there are
LINE_HEIGHT = 13
LETTER = 7  # the width of one in a label
LABEL_LETTERS = 22
COLOURS = 8
DASHES = ("", "6 3", "2 3")  # after each round of colours


@dataclass(frozen=True)
class Series:
    """A named sequence of points (x, y); ``place`` picks its colour and dashes."""

    name: str
    place: int
    points: tuple[tuple[float, float], ...]
    label: str = ""  # the name, as short as a chart has room for


@dataclass(frozen=True)
class Axes:
    """How data become places on the canvas."""

    x: tuple[float, float]
    y: tuple[float, float]
    right: float
    log_x: bool = False

    @classmethod
    def around(cls, series: Sequence[Series], log_x: bool = False, zero: bool = False) -> Axes:
        """Axes that hold all points, with a little room; from 0 on where ``zero``."""
        xs = [x for one in series for x, _ in one.points]
        ys = [y for one in series for _, y in one.points]
        low, high = min(ys), max(ys)
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        bottom = 0.0 if zero else low - room
        right = WIDTH - 18 - LETTER * max(5, _longest(series))
        if log_x:
            return cls((min(xs) / 1.3, max(xs) * 1.3), (bottom, high + room), right, True)
        return cls((min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1), (bottom, high + room), right)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point, in units of the canvas."""
        return self._across(x), HEIGHT - BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)

    def _across(self, x: float) -> float:
        low, high = self.x
        share = math.log(x / low) / math.log(high / low) if self.log_x else (x - low) / (high - low)
        return LEFT + share * (self.right - LEFT)


def scatter(series: Sequence[Series], front: Sequence[tuple[float, float]], x_title: str, y_title: str) -> str:
    """One labelled dot a series on a logarithmic x axis, and the ``front`` as a line of steps."""
    series = _labelled(series)
    axes = Axes.around(series, log_x=True)
    parts = [_frame(axes, _powers(axes.x), x_title, y_title)]
    if len(front) > 1:
        corners = [corner for (_, before), (x, y) in pairwise(front) for corner in ((x, before), (x, y))]
        parts.append(f'<polyline class="front" points="{_path([axes.at(*p) for p in [front[0], *corners]])}"/>')
    for column in _columns(series, axes):
        heights = spread([axes.at(*one.points[0])[1] for one in column])
        for one, height in zip(column, heights, strict=True):
            x, y = axes.at(*one.points[0])
            parts.append(f'<circle class="dot" {_colour(one)} cx="{x:.1f}" cy="{y:.1f}" r="4.5">{_hint(one)}</circle>')
            parts.append(_label(one, x + 5, y, x + 14, height))
    return _svg(parts, f"{y_title} against {x_title}")


def lines(series: Sequence[Series], x_title: str, y_title: str, names: Sequence[str] = (), zero: bool = False) -> str:
    """One line a series, its name at its end; ``names`` stand at x = 0, 1, ... where x is a category."""
    series = _labelled(series)
    axes = Axes.around(series, zero=zero)
    ticks = [(float(place), name) for place, name in enumerate(names)] or [
        (t, f"{t:g}") for t in _round(*axes.x, 5, least=1)
    ]
    parts = [_frame(axes, ticks, x_title, y_title)]
    ends = [axes.at(*one.points[-1]) for one in series]
    for one, (end_x, end_y), height in zip(series, ends, spread([y for _, y in ends]), strict=True):
        dash = DASHES[one.place // COLOURS % len(DASHES)]
        points = [axes.at(*point) for point in one.points]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline class="line" {_colour(one)}{dashed} points="{_path(points)}">{_hint(one)}</polyline>')
        if names or len(points) == 1:
            parts += [f'<circle class="dot" {_colour(one)} cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points]
        parts.append(_label(one, end_x, end_y, axes.right + 14, height))
    return _svg(parts, f"{y_title} by {x_title}")


def spread(heights: Sequence[float], gap: float = LINE_HEIGHT) -> list[float]:
    """Places near ``heights``, in the same order from top to bottom, ``gap`` apart and on the canvas."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    gap = min(gap, (HEIGHT - TOP - BOTTOM) / max(1, len(heights) - 1))
    placed = [0.0] * len(heights)
    floor = float(TOP)
    for index in order:
        placed[index] = max(heights[index], floor)
        floor = placed[index] + gap
    ceiling = float(HEIGHT - BOTTOM)
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def labels(names: Sequence[str]) -> list[str]:
    """The names as they are, or where one is too long, without the words that all share; cut so that they differ."""
    if max(map(len, names)) > LABEL_LETTERS and len(names) > 1:
        words = [name.split(" ") for name in names]
        shared = {word for word in words[0] if all(word in others for others in words)}
        shorter = [" ".join(word for word in one if word not in shared) for one in words]
        names = shorter if all(shorter) and len(set(shorter)) == len(set(names)) else names
    kept = LABEL_LETTERS - 1
    cuts = [
        [name if len(name) <= LABEL_LETTERS else name[:head] + "…" + name[len(name) - kept + head :] for name in names]
        for head in (kept, 0, kept // 2)  # of the end, of the beginning, of the middle
    ]
    return max(cuts, key=lambda cut: len(set(cut)))  # the first of those that tell the most apart


def _labelled(series: Sequence[Series]) -> list[Series]:
    named = labels([one.name for one in series])
    return [replace(one, label=label) for one, label in zip(series, named, strict=True)]


def _longest(series: Sequence[Series]) -> int:
    return max(len(one.label) for one in series)


def _columns(series: Sequence[Series], axes: Axes) -> list[list[Series]]:
    """The series whose labels would meet: dots less than a label apart in x."""
    columns: list[list[Series]] = []
    room = 14 + LETTER * _longest(series)
    last = -math.inf
    for one in sorted(series, key=lambda one: one.points[0]):
        x = axes.at(*one.points[0])[0]
        if x - last > room:
            columns.append([])
            last = x
        columns[-1].append(one)
    return columns


def _frame(axes: Axes, x_ticks: Sequence[tuple[float, str]], x_title: str, y_title: str) -> str:
    """Grid, ticks and titles."""
    bottom, right, parts = HEIGHT - BOTTOM, axes.right, []
    heights = _round(*axes.y, 5)
    for tick, written in zip(heights, _written(heights), strict=True):
        y = axes.at(axes.x[0], tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{written}</text>')
    for tick, name in x_ticks:
        x = axes.at(tick, axes.y[0])[0]
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="title" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>')
    across = f'x="12" y="{(TOP + bottom) / 2}" text-anchor="middle" transform="rotate(-90 12 {(TOP + bottom) / 2})"'
    return "".join(parts) + f'<text class="title" {across}>{escape(y_title)}</text>'


def _label(one: Series, from_x: float, from_y: float, x: float, y: float) -> str:
    """The name at (x, y), with a thin line to what it names."""
    lead = f'<line class="lead" {_colour(one)} x1="{from_x:.1f}" y1="{from_y:.1f}" x2="{x - 2:.1f}" y2="{y:.1f}"/>'
    return f'{lead}<text class="label" {_colour(one)} x="{x:.1f}" y="{y + 4:.1f}">{escape(one.label)}</text>'


def _hint(one: Series) -> str:
    x, y = one.points[-1]
    return f"<title>{escape(one.name)}: {y:.4g} at {x:.4g}</title>"


def _colour(one: Series) -> str:
    return f'style="--c:var(--s{one.place % COLOURS})"'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _svg(parts: Sequence[str], title: str) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
    return head + "".join(parts) + "</svg>"


def _round(low: float, high: float, count: int, least: float = 0.0) -> list[float]:
    """At most ``count`` + 1 round numbers within [low, high], no closer than ``least``."""
    rough = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _written(ticks: Sequence[float]) -> list[str]:
    """Ticks with the same number of decimals, where a few are enough to tell them apart."""
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 4
    return [f"{tick:.{decimals}f}" if decimals < 4 else f"{tick:.4g}" for tick in ticks]


def _powers(bounds: tuple[float, float]) -> list[tuple[float, str]]:
    """Powers of two within the bounds, every second or third one where they are many."""
    exponents = range(math.ceil(math.log2(bounds[0])), math.floor(math.log2(bounds[1])) + 1)
    chosen = exponents[:: max(1, -(-len(exponents) // 7))]
    return [(2.0**exponent, f"{2**exponent}" if exponent >= 0 else f"{2.0**exponent:g}") for exponent in chosen]
