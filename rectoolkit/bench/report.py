"""What a benchmark found, on the terminal, as a picture and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.errors import UserError, needed
from rectoolkit.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from rectoolkit.bench import Report

PICTURES = (".svg", ".png", ".pdf")


def show(report: Report) -> None:
    """The tables on the terminal, what was left out, and what the machine allows."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=140)
    title = f"top {report.k} of {report.items:,} items, {report.dim} dims, {report.threads} threads"
    caption = "x: times as fast as faiss FlatIP at its best number of threads; x float: as the fastest float32 here"
    table = Table(title=title, caption=caption)
    heads = ("", "bytes an item", f"recall@{report.k}", f"ms a query, {report.batch} at once", "x", "x float")
    for head in (*heads, "one: p50 ms", "p99", "x", "x float"):
        table.add_column(head, justify="right" if head else "left", no_wrap=not head)
    for r in report.rows:
        batch = f"{r.batch_ms:.3f}", f"{r.batch_ratio:.1f}", f"{r.batch_float_ratio:.1f}"
        single = f"{r.p50_ms:.2f}", f"{r.p99_ms:.2f}", f"{r.single_ratio:.1f}", f"{r.single_float_ratio:.1f}"
        table.add_row(r.name, f"{r.bytes_per_item:.0f}", f"{r.recall:.3f}", *batch, *single)
    console.print(table)
    table = Table(title="how steady the times were, and how near the limit of the machine")
    columns = ("", "rounds", "spread, batch", "spread, one", "batch: limit ms", "of it", "one: limit ms", "of it")
    for head in columns:
        table.add_column(head, justify="right" if head else "left", no_wrap=not head)
    for r in report.rows:
        near = [*_near(r.batch_limit_ms, r.batch_ms), *_near(r.single_limit_ms, r.p50_ms)]
        table.add_row(r.name, str(r.rounds), f"{r.batch_spread:.0%}", f"{r.single_spread:.0%}", *near)
    console.print(table)
    for line in report.skipped:
        console.print(line)
    for name, value in report.limits.items():
        unit = "read" if name == "bytes" else "of 64 bytes"
        console.print(f"{value / 1e9:.2f}e9 {name} {unit} a second, {report.threads} threads together")
    for row, (name, count) in report.needs.items():
        console.print(f"{row}: {count:.3f} {name} a query and item")


def _near(limit: float | None, measured: float) -> tuple[str, str]:
    return ("", "") if limit is None else (f"{limit:.3f}", f"{limit / measured:.0%}")


def plot(report: Report, path: str | Path) -> None:
    """Recall of float32's top k against bytes an item and against time, as a picture. Needs matplotlib."""
    figure = _figure()
    axes = figure.subplots(1, 2, sharey=True)
    columns = (("bytes_per_item", "bytes an item"), ("batch_ms", f"ms a query in batches of {report.batch}"))
    for axis, (column, label) in zip(axes, columns, strict=True):
        labels: dict[tuple[int, int], Any] = {}
        for row in report.rows:
            ours = row.name.startswith("rectoolkit")
            place = getattr(row, column), row.recall
            axis.plot(*place, "o" if ours else "x", color="tab:blue" if ours else "tab:gray")
            near = round(float(np.log10(place[0])) * 5), round(place[1] * 12)  # what would overlap shares a label
            if near not in labels:
                labels[near] = axis.annotate("", place, (5, 0), fontsize=7, textcoords="offset points", va="top")
            labels[near].set_text(f"{labels[near].get_text()}\n{row.name.removeprefix('rectoolkit ')}".strip())
        axis.margins(x=0.2, y=0.12)
        axis.set(xscale="log", xlabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"recall of float32's top {report.k}")
    figure.savefig(path)


def save_figures(figures: Any, path: Path) -> None:
    """All figures of a report, as dictionaries and lists, as JSON."""
    write_text(path, json.dumps(figures, indent=2) + "\n")


def check_writable(picture: Path | None, figures: Path | None) -> None:
    """Raise UserError now, not after minutes of measuring, where the plot or the figures cannot be written."""
    if picture is not None:
        if picture.suffix not in PICTURES:
            raise UserError(f"--plot {picture}: its name must end in one of {', '.join(PICTURES)}")
        _figure()
    for path in (picture, figures):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent}")


def _figure() -> Any:
    with needed("the plot"):
        from matplotlib.figure import Figure
    return Figure(figsize=(11, 4.5), layout="constrained")
