"""The results of a benchmark: tables, a plot, and JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rectoolkit.errors import UserError, needed
from rectoolkit.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from rectoolkit.bench.approximate import ListReport
    from rectoolkit.bench.exact import Report

PICTURES = (".svg", ".png", ".pdf")


class Table(NamedTuple):
    """A table to print, with notes below it."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    notes: list[str]


def exact_table(report: Report) -> Table:
    """The table of exact search, with a line on each library that was left out."""
    batch, single = f"ms per query, {report.batch} at once", "single query: p50 ms"
    heads = ["", "bytes per item", f"recall@{report.k}", batch, "speed-up", "vs fastest float"]
    heads += [single, "p99 ms", "speed-up", "vs fastest float"]
    rows = [
        [
            *(r.name, f"{r.bytes_per_item:.0f}", f"{r.recall:.3f}"),
            *(f"{r.batch_ms:.3f}", f"{r.batch_ratio:.1f}", f"{r.batch_float_ratio:.1f}"),
            *(f"{r.p50_ms:.2f}", f"{r.p99_ms:.2f}", f"{r.single_ratio:.1f}", f"{r.single_float_ratio:.1f}"),
        ]
        for r in report.rows
    ]
    notes = ["speed-up: relative to faiss FlatIP in float32, at its better number of threads", *report.skipped]
    return Table(_title(report), heads, rows, notes)


def lists_table(report: ListReport) -> Table:
    """The table of inverted lists beside the exact scan of the same codes."""
    heads = ["data", "bits", "lists searched", "bytes per item", "recall", f"ms per query, {report.batch} at once"]
    heads += ["speed-up", "single query: p50 ms", "speed-up"]
    rows = [
        [
            *(r.data, str(r.bits), "exact scan" if r.probe is None else str(r.probe), f"{r.bytes_per_item:.1f}"),
            *(f"{r.recall:.3f}", f"{r.batch_ms:.3f}", f"{r.batch_ratio:.1f}"),
            *(f"{r.p50_ms:.2f}", f"{r.single_ratio:.1f}"),
        ]
        for r in report.rows
    ]
    notes = [f"{report.lists:,} lists; speed-up: relative to the exact scan of the same codes"]
    notes += [f"building the lists, {name}: {seconds:.1f} s" for name, seconds in report.build_seconds.items()]
    return Table(_title(report), heads, rows, notes)


def _title(report: Report | ListReport) -> str:
    return f"top {report.k} of {report.items:,} items, {report.dim} dims, {report.threads} threads"


def plot(report: Report, path: str | Path) -> None:
    """Plot recall of float32's top k against bytes per item and against time. Needs matplotlib."""
    figure = _figure()
    axes = figure.subplots(1, 2, sharey=True)
    columns = (("bytes_per_item", "bytes per item"), ("batch_ms", f"ms per query, {report.batch} at once"))
    for axis, (column, label) in zip(axes, columns, strict=True):
        labels: dict[tuple[int, int], Any] = {}
        for row in report.rows:
            ours = row.name.startswith("rectoolkit")
            place = getattr(row, column), row.recall
            axis.plot(*place, "o" if ours else "x", color="tab:blue" if ours else "tab:gray")
            near = round(float(np.log10(place[0])) * 5), round(place[1] * 12)  # rows that would overlap share a label
            if near not in labels:
                labels[near] = axis.annotate("", place, (5, 0), fontsize=7, textcoords="offset points", va="top")
            labels[near].set_text(f"{labels[near].get_text()}\n{row.name.removeprefix('rectoolkit ')}".strip())
        axis.margins(x=0.2, y=0.12)
        axis.set(xscale="log", xlabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"recall of float32's top {report.k}")
    figure.savefig(path)


def save_figures(figures: Any, path: Path) -> None:
    """Write the figures of a report, as dictionaries and lists, as JSON."""
    write_text(path, json.dumps(figures, indent=2) + "\n")


def check_writable(picture: Path | None, figures: Path | None) -> None:
    """Raise UserError if the plot or the figures cannot be written. Called before minutes of measuring."""
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
