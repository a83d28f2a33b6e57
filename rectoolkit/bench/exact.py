"""Benchmark of exact search against faiss, torch and usearch: time, memory and recall on the same vectors.

All contestants answer the same queries in turn, round after round, so that other load on the machine affects all of
them alike. Medians are reported with two ratios, which depend least on the machine: to faiss ``IndexFlatIP`` in float32
at its better number of threads, and to the fastest float32 search of the same run. Recall is the share of float32's top
k that a contestant finds. It judges the codes and not the search, which is exact.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.bench.contestants import BASELINE, Row, contestants
from rectoolkit.bench.vectors import Vectors, check_sizes, load_kernels, random_vectors, trained_vectors
from rectoolkit.search.index import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.bench.contestants import Search

MOST_SECONDS = 20.0  # for one contestant over all rounds: the slowest ones run fewer rounds


@dataclass
class Report:
    """The rows, the libraries left out, and the sizes."""

    items: int
    dim: int
    k: int
    batch: int
    threads: int
    rows: list[Row]
    skipped: list[str] = field(default_factory=list)


def bench_random(
    items: int = 1_000_000,
    dim: int = 64,
    bits: Sequence[int] = (1, 2, 4, 8),
    *,
    k: int = 50,
    batch: int = 64,
    rounds: int = 9,
    **settings: Any,
) -> Report:
    """Measure codes of random vectors at each of ``bits``. Raises UserError if a number is out of range."""
    check_sizes(bits, items, dim, k, batch, rounds)
    return measure(random_vectors(4 * batch, items, dim, bits), k=k, batch=batch, rounds=rounds, **settings)


def bench_run(path: str | Path, **settings: Any) -> Report:
    """Measure the codes of a finished run beside its rows before quantization."""
    from rectoolkit.runs.run import Run

    run = Run.open(path)
    mixes_dims = bool(run.environment.get("mixes_dims"))
    return measure(trained_vectors(*run.tables(), run.float_rows(), mixes_dims), **settings)


def measure(
    vectors: Vectors,
    *,
    k: int = 50,
    batch: int = 64,
    rounds: int = 9,
    threads: int | None = None,
    others: bool = True,
    told: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run every contestant over ``vectors`` in turn, with progress reported to ``told``."""
    load_kernels()
    threads = threads or available_cores()
    batch, k = min(batch, len(vectors.queries)), min(k, len(vectors.items))
    skipped: list[str] = []
    told("preparing")
    entered = contestants(vectors, k, threads, others, skipped)
    rows = [row for row, _ in entered]
    truth = _float_top(vectors, k, slice(0, batch))
    for row, search in entered:
        told(f"{row.name}: recall")
        search(slice(0, 1))  # compiles and touches every page before anything is timed
        found = search(slice(0, batch))
        row.recall = float(np.mean([len(np.intersect1d(f, t)) / k for f, t in zip(found, truth, strict=True)]))
    times = take_turns([search for _, search in entered], len(vectors.queries), batch, rounds, told)
    for row, (batches, singles) in zip(rows, times, strict=True):
        row.rounds, row.batch_spread, row.single_spread = len(batches), _spread(batches), _spread(singles)
        row.batch_ms = float(np.median(batches)) / batch * 1e3
        row.p50_ms, row.p99_ms = (float(np.percentile(singles, p)) * 1e3 for p in (50, 99))
    _compare(rows)
    return Report(len(vectors.items), vectors.items.shape[1], k, batch, threads, rows, skipped)


def take_turns(
    searches: Sequence[Search], queries: int, batch: int, rounds: int, told: Callable[[str], None]
) -> list[tuple[list[float], list[float]]]:
    """Seconds of each search: of one batch a round, and of 16 single queries a round."""
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in searches]
    for turn in range(rounds):
        told(f"round {turn + 1} of {rounds}")
        for search, (batches, singles) in zip(searches, times, strict=True):
            if sum(batches) + sum(singles) < MOST_SECONDS:
                start = turn * batch % max(1, queries - batch + 1)
                batches.append(_seconds(search, slice(start, start + batch)))
                places = [start + (16 * turn + n) % batch for n in range(16)]
                singles += [_seconds(search, slice(place, place + 1)) for place in places]
    return times


def _spread(times: Sequence[float]) -> float:
    low, middle, high = np.percentile(times, (25, 50, 75))
    return float((high - low) / middle)


def _compare(rows: Sequence[Row]) -> None:
    """Fill in the ratios of all rows: to FlatIP at its best, and to the fastest float32 search."""
    flat = [row for row in rows if row.name.startswith(BASELINE)] or [rows[0]]
    floats = [row for row in rows if row.bits == 32] or flat
    for row in rows:
        row.batch_ratio, row.batch_float_ratio = (min(r.batch_ms for r in of) / row.batch_ms for of in (flat, floats))
        row.single_ratio, row.single_float_ratio = (min(r.p50_ms for r in of) / row.p50_ms for of in (flat, floats))


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
    start = time.perf_counter()
    search(rows)
    return time.perf_counter() - start
