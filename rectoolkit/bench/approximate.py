"""Inverted lists measured beside the exact scan: what they find of its top k, and what they save.

On two catalogues: codes of vectors drawn around centres, as trained embeddings are, and codes of random vectors, which
form no clusters, so that lists cannot help.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.bench import check_sizes, load_kernels, quantize
from rectoolkit.search.index import available_cores
from rectoolkit.search.inverted_lists import InvertedLists
from rectoolkit.search.packed import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rectoolkit.search.codes import PackedTable

    Floats = npt.NDArray[np.float32]

PROBES = (1, 4, 16, 64)
ITEMS_A_CENTRE = 1000
SPREAD = 0.7  # of a vector around its centre, whose dims have deviation 0.714: as much noise as centre


@dataclass
class ListRow:
    """One way to search: bytes an item, its share of the exact top k, milliseconds a query in a batch and alone."""

    data: str
    bits: int
    probe: int | None
    bytes_per_item: float
    recall: float = 1.0
    batch_ms: float = 0.0
    p50_ms: float = 0.0
    batch_ratio: float = 1.0
    single_ratio: float = 1.0


@dataclass
class ListReport:
    """All rows and their circumstances; ``probe`` None is the exact scan. ``build_seconds`` by data and bits."""

    items: int
    dim: int
    k: int
    batch: int
    threads: int
    lists: int
    rows: list[ListRow] = field(default_factory=list)
    build_seconds: dict[str, float] = field(default_factory=dict)


def bench_lists(
    items: int = 1_000_000,
    dim: int = 64,
    bits: Sequence[int] = (1, 2, 4, 8),
    *,
    k: int = 50,
    batch: int = 64,
    rounds: int = 9,
    threads: int | None = None,
    lists: int | None = None,
    seed: int = 0,
    told: Callable[[str], None] = lambda _: None,
) -> ListReport:
    """Measure lists of both catalogues at each of ``bits``. Raises UserError where a number is out of range."""
    check_sizes(bits, items, dim, k, batch, rounds)
    load_kernels()
    threads = threads or available_cores()
    report = ListReport(items, dim, k, batch, threads, 0)
    for name, centres in (("clustered", max(1, items // ITEMS_A_CENTRE)), ("random", 0)):
        stored, asked = _vectors(items, batch, dim, centres, seed)
        for width in bits:
            table, queries = quantize(stored, width), quantize(asked, width)
            told(f"{name}, {width} bit: building the lists")
            begun = time.perf_counter()
            built = InvertedLists.build(table, lists=lists)
            report.build_seconds[f"{name}, {width} bit"] = time.perf_counter() - begun
            told(f"{name}, {width} bit: searching, {rounds} rounds")
            report.lists = max(report.lists, built.lists)
            report.rows += _measured(name, Index(table), built, queries, report, rounds)
    return report


def _vectors(items: int, batch: int, dim: int, centres: int, seed: int) -> tuple[Floats, Floats]:
    """Items and queries, normal in each dim, around the same centres where there are any."""
    random = np.random.default_rng(seed)
    stored, asked = (random.standard_normal((n, dim), np.float32) for n in (items, batch))
    if centres:
        middle = random.standard_normal((centres, dim), np.float32) * np.float32((1 - SPREAD**2) ** 0.5)
        for vectors in (stored, asked):
            vectors *= np.float32(SPREAD)
            vectors += middle[random.integers(0, centres, len(vectors))]
    return stored, asked


def _measured(
    name: str, exact: Index, lists: InvertedLists, queries: PackedTable, report: ListReport, rounds: int
) -> list[ListRow]:
    k, threads, bits = report.k, report.threads, exact.items.bits
    base = ListRow(name, bits, None, exact.nbytes / len(exact))
    entered: list[tuple[ListRow, Callable[..., Any]]] = [(base, partial(exact.search, k=k, threads=threads))]
    for probe in [probe for probe in PROBES if probe <= lists.lists]:
        row = ListRow(name, bits, probe, lists.nbytes / len(lists))
        entered.append((row, partial(lists.search, k=k, probe=probe, threads=threads)))
    truth = entered[0][1](queries).ids
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in entered]
    for row, search in entered:
        search(queries.take(slice(0, 1)))
        found = search(queries).ids
        row.recall = float(np.mean([np.isin(t[t >= 0], f).mean() for t, f in zip(truth, found, strict=True)]))
    for turn in range(rounds):
        for (_, search), (batches, singles) in zip(entered, times, strict=True):
            batches.append(_timed(search, queries))
            one = [(turn * 16 + n) % queries.num_rows for n in range(16)]
            singles += [_timed(search, queries.take(slice(n, n + 1))) for n in one]
    for (row, _), (batches, singles) in zip(entered, times, strict=True):
        row.batch_ms, row.p50_ms = float(np.median(batches)) / queries.num_rows * 1e3, float(np.median(singles)) * 1e3
        row.batch_ratio, row.single_ratio = base.batch_ms / row.batch_ms, base.p50_ms / row.p50_ms
    return [row for row, _ in entered]


def _timed(search: Callable[..., Any], queries: PackedTable) -> float:
    start = time.perf_counter()
    search(queries)
    return time.perf_counter() - start


def show_lists(report: ListReport) -> None:
    """The table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    title = f"top {report.k} of {report.items:,} items, {report.dim} dims, {report.threads} threads"
    table = Table(title=title, caption=f"{report.lists:,} lists; x: times as fast as the exact scan of the same codes")
    heads = ("data", "bits", "lists opened", "bytes an item", "recall", f"ms a query, {report.batch} at once", "x")
    for head in (*heads, "one: p50 ms", "x"):
        table.add_column(head, justify="left" if head == "data" else "right")
    for r in report.rows:
        opened = "exact" if r.probe is None else str(r.probe)
        speed = (f"{r.batch_ms:.3f}", f"{r.batch_ratio:.1f}", f"{r.p50_ms:.2f}", f"{r.single_ratio:.1f}")
        table.add_row(r.data, str(r.bits), opened, f"{r.bytes_per_item:.1f}", f"{r.recall:.3f}", *speed)
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table)
    for name, seconds in report.build_seconds.items():
        console.print(f"building the lists, {name}: {seconds:.1f} s")
