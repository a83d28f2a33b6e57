"""Benchmark of inverted lists against the exact scan: the share of its top k that they find, and their speed.

They are measured on two catalogues: vectors drawn around centres, as trained embeddings are, and random vectors, which
form no clusters, so that lists cannot help.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.bench.exact import take_turns
from rectoolkit.bench.vectors import check_sizes, clustered_vectors, load_kernels, quantize
from rectoolkit.search.index import available_cores
from rectoolkit.search.inverted_lists import InvertedLists
from rectoolkit.search.packed import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rectoolkit.bench.contestants import Search
    from rectoolkit.search.codes import PackedTable

PROBES = (1, 4, 16, 64)
ITEMS_A_CENTRE = 1000


@dataclass
class ListRow:
    """A way to search: bytes per item, share of the exact top k, milliseconds per query in a batch and alone.

    ``probe`` is the number of lists searched, None for the exact scan.
    """

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
    """The rows, the sizes, and the time to build the lists by data and bits."""

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
    """Measure lists on both catalogues at each of ``bits``. Raises UserError if a number is out of range."""
    check_sizes(bits, items, dim, k, batch, rounds)
    load_kernels()
    threads = threads or available_cores()
    report = ListReport(items, dim, k, batch, threads, 0)
    for name, centres in (("clustered", max(1, items // ITEMS_A_CENTRE)), ("random", 0)):
        asked, stored = clustered_vectors(batch, items, dim, centres, seed)
        for width in bits:
            table, queries = quantize(stored, width), quantize(asked, width)
            told(f"{name}, {width} bit: building the lists")
            begun = time.perf_counter()
            built = InvertedLists.build(table, lists=lists)
            report.build_seconds[f"{name}, {width} bit"] = time.perf_counter() - begun
            report.lists = max(report.lists, built.lists)
            report.rows += _measured(name, Index(table), built, queries, report, rounds, told)
    return report


def _measured(
    name: str,
    exact: Index,
    lists: InvertedLists,
    queries: PackedTable,
    report: ListReport,
    rounds: int,
    told: Callable[[str], None],
) -> list[ListRow]:
    def scan(rows: slice) -> npt.NDArray[Any]:
        return exact.search(queries.take(rows), report.k, threads=report.threads).ids

    def probed(rows: slice, probe: int) -> npt.NDArray[Any]:
        return lists.search(queries.take(rows), report.k, probe=probe, threads=report.threads).ids

    probes = [probe for probe in PROBES if probe <= lists.lists]
    searches: list[Search] = [scan, *(partial(probed, probe=probe) for probe in probes)]
    rows = [ListRow(name, exact.items.bits, None, exact.nbytes / len(exact))]
    rows += [ListRow(name, exact.items.bits, probe, lists.nbytes / len(lists)) for probe in probes]
    everyone = slice(0, queries.num_rows)
    truth = scan(everyone)
    for row, search in zip(rows, searches, strict=True):
        search(slice(0, 1))
        found = search(everyone)
        row.recall = float(np.mean([np.isin(t[t >= 0], f).mean() for t, f in zip(truth, found, strict=True)]))
    times = take_turns(searches, queries.num_rows, queries.num_rows, rounds, told)
    for row, (batches, singles) in zip(rows, times, strict=True):
        row.batch_ms, row.p50_ms = float(np.median(batches)) / queries.num_rows * 1e3, float(np.median(singles)) * 1e3
        row.batch_ratio, row.single_ratio = rows[0].batch_ms / row.batch_ms, rows[0].p50_ms / row.p50_ms
    return rows
