"""The search measured beside the others: time, memory and recall, on the same vectors in one alternating run.

Every contestant answers the same queries in turn, round after round, so that whatever else the machine does falls on
all alike; medians are reported, and the ratio to faiss ``IndexFlatIP`` in float32 of the same run, which is what
carries from machine to machine. Recall is the share of float32's top k that a contestant's top k holds: it judges
the codes, not the search, which is exact. Random vectors are the hardest case; ``bench_tables`` takes trained ones.

Libraries that are not installed are left out with a line. ``rectool bench --help``.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.atomic import write_text
from rectoolkit.bench.contestants import BASELINE, Row, Vectors, contestants, library
from rectoolkit.codes import CodeTable, PackedTable
from rectoolkit.errors import UserError
from rectoolkit.index import Index, available_cores, compiled_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rectoolkit.bench.approximate import ListReport
    from rectoolkit.bench.contestants import Search

    Floats = npt.NDArray[np.float32]

PICTURES = (".svg", ".png", ".pdf")
MOST_SECONDS = 20.0  # of one contestant, all rounds together: the slowest run fewer rounds


@dataclass
class Report:
    """All rows, what was left out, and the circumstances. ``limits``: bytes a second read, pairs a second by kernel."""

    items: int
    dim: int
    k: int
    batch: int
    threads: int
    rows: list[Row]
    skipped: list[str] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)


def bench(
    items: int = 1_000_000,
    dim: int = 64,
    bits: Sequence[int] = (1, 2, 4, 8),
    *,
    k: int = 50,
    batch: int = 64,
    rounds: int = 9,
    threads: int | None = None,
    others: bool = True,
    seed: int = 0,
) -> Report:
    """Measure codes of random normal vectors at each of ``bits``. Raises UserError where a number is out of range."""
    check_sizes(bits, items, dim, k, batch, rounds)
    random = np.random.default_rng(seed)
    asked, stored = (random.standard_normal((n, dim), np.float32) for n in (4 * batch, items))
    coded = {f"{b} bit": (quantize(asked, b), quantize(stored, b)) for b in bits}
    return measure(Vectors(asked, stored, coded), k=k, batch=batch, rounds=rounds, threads=threads, others=others)


def check_sizes(bits: Sequence[int], *sizes: int) -> None:
    """Raise UserError where there is nothing to measure."""
    if not bits or min(*sizes, *bits) < 1 or max(bits) > 8:
        raise UserError("items, dim, k, batch and rounds must be at least 1, and bits 1 to 8")


def bench_tables(
    users: PackedTable, items: PackedTable, floats: tuple[Floats, Floats] | None = None, **settings: Any
) -> Report:
    """Measure the codes of a run, against ``floats`` (users, items) of it or, without, its own decoded values."""
    chosen = np.random.default_rng(0).permutation(users.num_rows)[:1024]
    users = users.take(chosen)
    asked = users.unpack().decode() if floats is None else np.asarray(floats[0])[chosen]
    stored = items.unpack().decode() if floats is None else np.array(floats[1])
    return measure(Vectors(asked, stored, {f"{items.bits} bit": (users, items)}), **settings)


def bench_run(path: str | Path, **settings: Any) -> Report:
    """Measure the codes of a finished run against its rows before the quantizer."""
    from rectoolkit.run import Run

    run = Run.open(path)
    return bench_tables(*run.tables(), run.float_rows(), **settings)


def evaluation(
    users: int = 29_858, items: int = 40_981, dim: int = 64, *, k: int = 50, seen: int = 27, rounds: int = 5
) -> dict[str, float]:
    """Seconds to rank all items for all users, seen ones excluded: 1-bit codes, and torch in blocks of 2048 users.

    The sizes are Gowalla's. Without torch, its time is left out.
    """
    random = np.random.default_rng(0)
    floats = [random.standard_normal((n, dim), np.float32) for n in (users, items)]
    asked, stored = (quantize(f, 1) for f in floats)
    indptr, excluded = np.arange(users + 1) * seen, random.integers(0, items, users * seen)
    index = Index(stored)
    calls: dict[str, Callable[[], Any]] = {
        "rectoolkit 1 bit": partial(index.search, asked, k, seen=(indptr, excluded)),
    }
    torch = library("torch", "torch", [])
    if torch is not None:
        queries, table = (torch.from_numpy(f) for f in floats)

        def by_torch() -> None:
            for start in range(0, users, 2048):
                scores = queries[start : start + 2048] @ table.T
                rows = np.repeat(np.arange(len(scores)), seen)
                masked = excluded[start * seen : start * seen + len(rows)]
                scores[torch.from_numpy(rows), torch.from_numpy(masked)] = -torch.inf
                torch.topk(scores, k)

        calls["torch matmul + topk"] = by_torch
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            seconds = _timed(call)
            times[name] += [seconds] if turn else []  # the first time compiles
    return {name: float(np.median(found)) for name, found in times.items()}


def quantize(vectors: Floats, bits: int) -> PackedTable:
    """Codes of standard normal vectors on the uniform grid of least squared error for that width."""
    step = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.335, 5: 0.188, 6: 0.104, 7: 0.0569, 8: 0.0308}[bits]
    levels = 1 << bits
    codes = np.clip(np.floor(vectors / np.float32(step)) + levels // 2, 0, levels - 1).astype(np.uint8)
    scale = np.full((1, 1), step, np.float32)
    return PackedTable.pack(CodeTable(codes, scale, -scale * np.float32((levels - 1) / 2), bits))


def measure(
    vectors: Vectors, *, k: int = 50, batch: int = 64, rounds: int = 9, threads: int | None = None, others: bool = True
) -> Report:
    """Run every contestant over ``vectors`` in turn."""
    threads = threads or available_cores()
    batch, k = min(batch, len(vectors.queries)), min(k, len(vectors.items))
    skipped: list[str] = []
    entered = contestants(vectors, k, threads, others, skipped)
    truth = _float_top(vectors, k, slice(0, batch))
    times: dict[str, tuple[list[float], list[float]]] = {row.name: ([], []) for row, _ in entered}
    for row, search in entered:
        search(slice(0, 1))  # compiles and touches every page before anything is timed
        found = search(slice(0, batch))
        row.recall = float(np.mean([len(np.intersect1d(f, t)) / k for f, t in zip(found, truth, strict=True)]))
    compiled_kernels(math.inf)  # or small sizes would time numpy, and call it the kernels
    for turn in range(rounds):
        for row, search in entered:
            batches, singles = times[row.name]
            if sum(batches) + sum(singles) < MOST_SECONDS:
                start = turn * batch % max(1, len(vectors.queries) - batch + 1)
                batches.append(_seconds(search, slice(start, start + batch)))
                singles += [_seconds(search, slice(start + n % batch, start + n % batch + 1)) for n in range(16)]
    for row, _ in entered:
        batches, singles = times[row.name]
        row.batch_ms = float(np.median(batches)) / batch * 1e3
        row.p50_ms, row.p99_ms = (float(np.percentile(singles, p)) * 1e3 for p in (50, 99))
    base = base_of([row for row, _ in entered])
    for row, _ in entered:
        row.batch_ratio, row.single_ratio = base.batch_ms / row.batch_ms, base.p50_ms / row.p50_ms
    rows = [row for row, _ in entered]
    return Report(
        len(vectors.items), vectors.items.shape[1], k, batch, threads, rows, skipped, limits(vectors, threads)
    )


def limits(vectors: Vectors, threads: int) -> dict[str, float]:
    """What the machine allows: bytes a second read by all threads, and query-item pairs a second from cache.

    The pairs are those of the search itself, k = 1, in the difference between 65536 items and 4096: what is left is the
    filter on data in cache, where hardly anything passes it.
    """
    from concurrent.futures import ThreadPoolExecutor

    data = np.ones((threads, 1 << 24), np.int64)
    with ThreadPoolExecutor(threads) as pool:
        seconds = min(_timed(lambda: list(pool.map(np.sum, data))) for _ in range(5))
    found = {"bytes": data.nbytes / seconds}
    few, many = 4096, 65536
    for label, (users, items) in vectors.coded.items() if len(vectors.items) >= many else ():
        asked, times = users.take(np.arange(1024) % users.num_rows), []
        for size in (few, many):
            search = partial(Index(items.take(slice(0, size))).search, asked, 1, threads=threads)
            search()
            times.append(min(_timed(search) for _ in range(5)))
        found[f"pairs, {label}"] = 1024 * (many - few) / (times[1] - times[0])
    return found


def _float_top(vectors: Vectors, k: int, rows: slice) -> npt.NDArray[Any]:
    best: Any = None
    for start in range(0, len(vectors.items), 65536):
        scores = vectors.queries[rows] @ vectors.items[start : start + 65536].T
        ids = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        if best is not None:
            scores, ids = (np.concatenate(pair, axis=1) for pair in zip(best, (scores, ids), strict=True))
        kept = np.argsort(-scores, axis=1)[:, :k]
        best = tuple(np.take_along_axis(a, kept, axis=1) for a in (scores, ids))
    found: npt.NDArray[Any] = best[1]
    return found


def _seconds(search: Search, rows: slice) -> float:
    return _timed(lambda: search(rows))


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def base_of(rows: Sequence[Row]) -> Row:
    """The row that the others are compared with: faiss FlatIP, or the first where faiss is not installed."""
    return next((row for row in rows if row.name == BASELINE), rows[0])


def show(report: Report) -> None:
    """The table on the terminal, and what was left out."""
    from rich.console import Console
    from rich.table import Table

    title = f"top {report.k} of {report.items:,} items, {report.dim} dims, {report.threads} threads"
    table = Table(title=title, caption=f"x: times as fast as {base_of(report.rows).name}")
    heads = (
        "",
        "bytes an item",
        f"recall@{report.k}",
        f"ms a query, {report.batch} at once",
        "x",
        "one: p50 ms",
        "p99",
        "x",
    )
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=not head)
    for r in report.rows:
        speed = (
            f"{r.batch_ms:.3f}",
            f"{r.batch_ratio:.1f}",
            f"{r.p50_ms:.2f}",
            f"{r.p99_ms:.2f}",
            f"{r.single_ratio:.1f}",
        )
        table.add_row(r.name, f"{r.bytes_per_item:.0f}", f"{r.recall:.3f}", *speed)
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table)
    for line in report.skipped:
        console.print(line)
    for name, value in report.limits.items():
        console.print(f"limit: {value / 1e9:.2f}e9 {name} a second")


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


def save_figures(report: Report | ListReport, path: Path) -> None:
    """All figures of the report as JSON."""
    write_text(path, json.dumps(asdict(report), indent=2) + "\n")


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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"the plot needs matplotlib ({error}): pip install matplotlib") from None
    return Figure(figsize=(11, 4.5), layout="constrained")
