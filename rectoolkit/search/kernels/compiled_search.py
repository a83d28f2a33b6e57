"""Compiled exact search: chooses a scan, prepares the queries, and shares the items out among threads. Needs numba."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.search.codes import Integers
from rectoolkit.search.kernels import scan
from rectoolkit.search.kernels.compiling import LANES
from rectoolkit.search.kernels.lookup import has_tables
from rectoolkit.search.kernels.matrices import has_matrices
from rectoolkit.search.kernels.products import QUERY_TILE
from rectoolkit.search.kernels.queries import Asked, Bounds, Form, Items, Layout, Work, ask, is_hamming, layout_of, tame

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.search.codes import PackedTable
    from rectoolkit.search.kernels.numpy_search import Question

    Keys = npt.NDArray[np.uint64]

QUERY_GROUP = 256  # whose bytes and heaps (k = 50) fit the second-level cache
LEAST_ITEMS = 1 << 16  # handing fewer to a thread takes about as long as scanning them
LEAST_RANGES = 64  # fewer lists are scanned faster by one thread
SAMPLE = 64  # one tile in 64 is scanned first, for a first threshold
HEAP_BYTES = 1 << 26
MOST_DIMS = (1 << 15) + 1  # beyond it the 32-bit sums of a scan could overflow
FEW_QUERIES = 2  # for up to so many, codes are multiplied as they are unpacked
# Nanoseconds per item of 64 dims on one core: unpacking it to bytes and a byte product for each query; or a little for
# each query and a product of each pair of planes. Measured with AVX-512; the ratios with AVX2 are alike.
UNPACKING, BYTE_PRODUCT, PLANE_QUERY, PLANE_PRODUCT = 6.0, 0.43, 0.25, 0.08


def serves(queries: Integers, bounds: Bounds) -> bool:
    """Whether the kernels rank these queries exactly. numpy ranks the others."""
    return queries.values.shape[1] < MOST_DIMS and bounds.tame and tame(queries)


def best_keys(question: Question, bounds: Bounds) -> Keys:
    """The k best keys of each query, descending, uint64 (Q, k). 0 stands for none."""
    num, size = len(question.queries.values), question.items.num_rows
    kept = min(question.k, size)
    result = np.zeros((num, question.k), np.uint64)
    block = max(QUERY_TILE, min(4096, HEAP_BYTES // (8 * max(1, kept) * question.threads)))
    if not kept or not question.items.dim:
        block = max(1, num)
    for start in range(0, num, block) if kept else ():
        rows = slice(start, min(start + block, num))
        result[rows, :kept] = _block(question.part(rows), bounds, kept)
    return result


def keys_in_ranges(question: Question, bounds: Bounds, ranges: npt.NDArray[np.int64]) -> Keys:
    """``best_keys`` where each query ranks only the item rows from first to last of its ``ranges`` (Q, P, 2).

    Queries share no tile here, so unpacking would not pay.
    """
    num, size = len(question.queries.values), question.items.num_rows
    kept = min(question.k, size)
    layout = layout_of(question.queries.segments)
    kernel = scan.hamming_ranges if is_hamming(question.queries, question.items) else scan.planes_ranges
    asked, items = ask(question, layout, bounds, "planes"), _items(question)
    heaps, floors = np.zeros((num, kept), np.uint64), np.zeros(num, np.uint64)
    threads = 1 if num * ranges.shape[1] < LEAST_RANGES else question.threads

    def scan_part(first: int) -> None:
        work = Work.of(question.items.bits, layout, num)
        kernel(items, layout, asked, heaps, floors, work, ranges, first, threads)

    shared(threads, [partial(scan_part, first) for first in range(threads)])
    result = np.zeros((num, question.k), np.uint64)
    result[:, :kept] = np.sort(heaps, axis=1)[:, ::-1]
    return result


def _block(question: Question, bounds: Bounds, kept: int) -> Keys:
    kernel, form = choose(question.queries, question.items)
    layout = layout_of(question.queries.segments)
    asked = ask(question, layout, bounds, form)
    run = _Run(kernel, _items(question), layout, asked, question.threads, len(question.queries.values))
    floors = run.sampled(kept)
    found = run.over(kept, floors)
    if (found[:, -1] < floors).any():  # the sample misled: some of the best may lie below a floor
        found = run.over(kept, np.zeros_like(floors))
    return found


@dataclass(frozen=True)
class _Run:
    """One kernel over one catalogue for ``num`` queries."""

    kernel: Callable[..., None]
    items: Items
    layout: Layout
    asked: Asked
    threads: int
    num: int

    def over(self, kept: int, floors: Keys, step: int = 1) -> Keys:
        """The ``kept`` best keys (num, kept) of every ``step``-th tile, descending. Threads share queries and items."""
        size, bits = self.items.planes.shape[:2]
        wanted = -(-self.num // (self.threads * QUERY_TILE)) * QUERY_TILE if step > 1 else QUERY_GROUP
        group = min(QUERY_GROUP, wanted)
        groups = range(0, self.num, group)
        parts = 1 if step > 1 or len(groups) >= 2 * self.threads else self.threads
        chunk = max(LEAST_ITEMS, -(-size // (parts * LANES)) * LANES) if parts > 1 else size
        chunks = range(0, size, chunk)
        heaps = np.zeros((len(chunks), self.num, kept), np.uint64)
        tasks = [
            (n, first, min(first + chunk, size), step, start, min(start + group, self.num))
            for start in groups
            for n, first in enumerate(chunks)
        ]

        def scan_part(n: int, *bounds: int) -> None:
            work = Work.of(bits, self.layout, self.num)
            self.kernel(self.items, self.layout, self.asked, heaps[n], floors, work, *bounds)

        shared(self.threads, [partial(scan_part, *task) for task in tasks])
        merged = heaps.transpose(1, 0, 2).reshape(self.num, -1)
        if len(chunks) > 1:
            merged = np.partition(merged, merged.shape[1] - kept, axis=1)[:, merged.shape[1] - kept :]
        return np.sort(merged, axis=1)[:, ::-1]

    def sampled(self, kept: int) -> Keys:
        """A key for each query that its ``kept`` best very likely reach: one well down the ranking of a sample.

        About kept / SAMPLE of the best items lie in a share 1 / SAMPLE of all. Six deviations more almost never do.
        """
        expected = kept / SAMPLE
        place = int(expected + 6 * expected**0.5 + 6)
        if self.items.planes.shape[0] < SAMPLE * LANES * 4 or place * SAMPLE * 4 > self.items.planes.shape[0]:
            return np.zeros(self.num, np.uint64)
        return np.ascontiguousarray(self.over(place, np.zeros(self.num, np.uint64), SAMPLE)[:, -1])


def _items(question: Question) -> Items:
    return Items(
        _fixed(question.items.planes),
        _fixed(question.items.planes.reshape(-1)),
        _fixed(np.zeros((1, 1), np.float32) if question.items.halved else question.items.scale),
        _fixed(question.items.scale if question.items.halved else np.zeros((0, 1), np.uint16)),
        _fixed(question.items.offset),
        np.zeros(0, np.int64) if question.ids is None else question.ids,
        np.zeros(0, bool) if question.masks.banned is None else question.masks.banned,
    )


def choose(queries: Integers, items: PackedTable) -> tuple[Callable[..., None], Form]:
    """Choose the scan, and the form in which it takes the queries."""
    if is_hamming(queries, items):
        return scan.scan_hamming, "planes"
    values, num = queries.values, len(queries.values)
    matrices = has_matrices(queries, items)
    if matrices and num <= FEW_QUERIES:
        return scan.scan_rows, "small"
    if has_tables(queries, items):
        return scan.scan_tables, "tables"
    if matrices:
        return scan.scan_small, "small"
    coded = values.size and values.min() >= 0 and values.max() <= 255
    query_bits = int(values.max()).bit_length() if coded else 8
    by_planes = PLANE_QUERY + PLANE_PRODUCT * query_bits * items.bits
    if by_planes * num < UNPACKING + BYTE_PRODUCT * num:
        return scan.scan_planes, "planes"
    return scan.scan_bytes, "bytes"


def _fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view. numba then sees one type, memory-mapped or not, and compiles once."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def shared(threads: int, tasks: list[Callable[[], None]]) -> None:
    """Do the tasks on this many threads. The calling thread is one of them, since it would only wait.

    While the interpreter exits no thread can be started, and the calling one does all tasks.
    """
    waiting = deque(tasks)

    def work() -> None:
        while True:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            task()

    others = []
    if threads > 1 and len(tasks) > 1:
        try:
            others = [_pool(threads).submit(work) for _ in range(min(threads, len(tasks)) - 1)]
        except RuntimeError:  # cannot schedule new futures after (interpreter) shutdown
            others = []
    try:
        work()
    finally:
        waiting.clear()  # where a task failed, nobody begins another
        for other in others:
            if not other.cancel():
                other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool for each number of threads, kept because starting threads takes longer than a scan."""
    return ThreadPoolExecutor(threads, thread_name_prefix="rectoolkit")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but none of its threads: it would wait for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)
