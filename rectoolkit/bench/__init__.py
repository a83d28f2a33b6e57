"""The search measured beside the others: time, memory and recall, on the same vectors in one alternating run.

Every contestant answers the same queries in turn, round after round, so that whatever else the machine does falls on
all alike. Medians are reported, and two ratios, which are what carries from machine to machine: to faiss
``IndexFlatIP`` in float32 at its best number of threads, and to the fastest float32 of the same run. Beside each of
ours stands what the machine allows, measured without any search (``probes``). Recall is the share of
float32's top k that a contestant's top k holds: it judges the codes, not the search, which is exact. Random vectors
are the hardest case; ``bench_tables`` takes trained ones.

Libraries that are not installed are left out with a line. ``rectool bench --help``.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.bench.contestants import BASELINE, Row, Vectors, contestants, library
from rectoolkit.errors import UserError
from rectoolkit.search.codes import CodeTable, PackedTable
from rectoolkit.search.index import available_cores
from rectoolkit.search.packed import Index, compiled_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from rectoolkit.bench.contestants import Search

    Floats = npt.NDArray[np.float32]

MOST_SECONDS = 20.0  # of one contestant, all rounds together: the slowest run fewer rounds


@dataclass
class Report:
    """All rows, what was left out, and the circumstances.

    ``limits``: bytes a second read and vectors a second by instruction, all threads together; ``needs``: the
    instruction that decides for a row, and how many of it a query and an item take.
    """

    items: int
    dim: int
    k: int
    batch: int
    threads: int
    rows: list[Row]
    skipped: list[str] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)
    needs: dict[str, tuple[str, float]] = field(default_factory=dict)


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
    told: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure codes of random normal vectors at each of ``bits``. Raises UserError where a number is out of range."""
    check_sizes(bits, items, dim, k, batch, rounds)
    random = np.random.default_rng(seed)
    asked, stored = (random.standard_normal((n, dim), np.float32) for n in (4 * batch, items))
    coded = {f"{b} bit": (quantize(asked, b), quantize(stored, b)) for b in bits}
    return measure(
        Vectors(asked, stored, coded), k=k, batch=batch, rounds=rounds, threads=threads, others=others, told=told
    )


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
    from rectoolkit.runs.run import Run

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
    load_kernels()
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
    vectors: Vectors,
    *,
    k: int = 50,
    batch: int = 64,
    rounds: int = 9,
    threads: int | None = None,
    others: bool = True,
    told: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run every contestant over ``vectors`` in turn, and tell ``told`` how far that is."""
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
    times: dict[str, tuple[list[float], list[float]]] = {row.name: ([], []) for row in rows}
    for turn in range(rounds):
        for row, search in entered:
            batches, singles = times[row.name]
            if sum(batches) + sum(singles) < MOST_SECONDS:
                told(f"round {turn + 1} of {rounds}: {row.name}")
                start = turn * batch % max(1, len(vectors.queries) - batch + 1)
                batches.append(_seconds(search, slice(start, start + batch)))
                singles += [_seconds(search, slice(start + n % batch, start + n % batch + 1)) for n in range(16)]
    for row in rows:
        batches, singles = times[row.name]
        row.rounds, row.batch_spread, row.single_spread = len(batches), _spread(batches), _spread(singles)
        row.batch_ms = float(np.median(batches)) / batch * 1e3
        row.p50_ms, row.p99_ms = (float(np.percentile(singles, p)) * 1e3 for p in (50, 99))
    _compare(rows)
    report = Report(len(vectors.items), vectors.items.shape[1], k, batch, threads, rows, skipped)
    told("limits of the machine")
    _limit(report, vectors)
    return report


def load_kernels() -> None:
    """Load the compiled kernels, or what is timed is numpy. Raises UserError where numba is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if compiled_kernels(math.inf) is None:
            raise UserError("the compiled kernels are what is measured, and they need numba: pip install numba")


def _spread(times: Sequence[float]) -> float:
    low, middle, high = np.percentile(times, (25, 50, 75))
    return float((high - low) / middle)


def _compare(rows: Sequence[Row]) -> None:
    """Fill in the ratios of all rows: to FlatIP at its best, and to the fastest of those that rank float32."""
    flat = [row for row in rows if row.name.startswith(BASELINE)] or [rows[0]]
    floats = [row for row in rows if row.bits == 32] or flat
    for row in rows:
        row.batch_ratio, row.batch_float_ratio = (min(r.batch_ms for r in of) / row.batch_ms for of in (flat, floats))
        row.single_ratio, row.single_float_ratio = (min(r.p50_ms for r in of) / row.p50_ms for of in (flat, floats))


def _limit(report: Report, vectors: Vectors) -> None:
    """What the machine allows, and from it the limit of each of ours: instructions in a batch, bytes for one query."""
    from rectoolkit.bench import probes
    from rectoolkit.search.codes import Integers

    rates = probes.instructions(report.threads)
    report.limits = {"bytes": probes.bandwidth(report.threads), **rates}
    rows = {row.name: row for row in report.rows}
    for label, (users, items) in vectors.coded.items():
        floats = Integers.of_floats(vectors.queries[: report.batch], items.segments)
        for name, asked in (
            (f"rectoolkit {label}", Integers.of(users.take(slice(0, report.batch)).unpack())),
            (f"rectoolkit {label}, float query", floats),
        ):
            if name in rows:
                rows[name].single_limit_ms = items.planes.nbytes / report.limits["bytes"] * 1e3
                need = probes.needed(asked, items)
                if need is not None:
                    report.needs[name] = need
                    rows[name].batch_limit_ms = need[1] * items.num_rows / rates[need[0]] * 1e3


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
