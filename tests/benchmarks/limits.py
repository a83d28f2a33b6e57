"""The limits of the machine, measured without any search: vector instructions and bytes read per second.

A search kernel is limited by the instruction that it executes most often for 64 items and a query. At best, a core
completes one such instruction on 64 bytes per cycle. Loads, additions and comparisons run in parallel.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba import types

from rectoolkit.search.codes import Integers
from rectoolkit.search.kernels import scan
from rectoolkit.search.kernels.compiled_search import choose
from rectoolkit.search.kernels.compiling import FEATURES, I32, I64, INSTRUCTION_SET, Loop, call, inlined, splat, vector
from rectoolkit.search.kernels.lookup import HAS_LOOKUP, LOOKUPS
from rectoolkit.terminal import console, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from rectoolkit.bench.exact import Report
    from rectoolkit.bench.vectors import Vectors
    from rectoolkit.search.codes import PackedTable

COMPILER: Any = numba.njit
CHAINS, TURNS, ROUNDS = 16, 200_000, 12
PROBES = {  # its name in LLVM, the vector it works on, how often it takes the chain as an argument, where it is found
    "vpdpbusd": ("llvm.x86.avx512.vpdpbusd.512", vector(I32, 16), 3, INSTRUCTION_SET == "vnni512"),
    "vpopcntq": ("llvm.ctpop.v8i64", vector(I64, 8), 1, "avx512vpopcntdq" in FEATURES),
    "vpermb": ("llvm.x86.avx512.permvar.qi.512", vector(ir.IntType(8), 64), 2, HAS_LOOKUP),
}


def _chains(name: str) -> Any:
    """TURNS of 16 independent chains of an instruction, compiled."""
    called, kind, arguments, _ = PROBES[name]

    @inlined
    def chained(typing: Any, turns: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            start = builder.trunc(values[0], kind.element) if kind.element != I64 else values[0]
            first = splat(builder, start, kind.count)

            def step(turn: Any, carried: list[Any]) -> list[Any]:
                return [call(builder, called, kind, *[each] * arguments) for each in carried]

            totals = Loop(builder, values[0], [first] * CHAINS, step).values
            for total in totals[1:]:
                totals[0] = builder.xor(totals[0], total)
            found = builder.extract_element(totals[0], I32(0))
            return found if kind.element == I64 else builder.zext(found, I64)

        return types.int64(turns), generate

    def probe(turns: int) -> Any:
        return chained(turns)

    return COMPILER(nogil=True)(probe)


@COMPILER(nogil=True)  # type: ignore[untyped-decorator]
def _summed(words: Any) -> Any:
    total = np.int64(0)
    for word in words:
        total += word
    return total


def instructions(threads: int) -> dict[str, float]:
    """Vectors of 64 bytes a second, all threads together, of each instruction the machine has."""
    return {
        name: threads * CHAINS * TURNS / _least([partial(_chains(name), TURNS)] * threads)
        for name, (*_, found) in PROBES.items()
        if found
    }


def bandwidth(threads: int, size: int = 1 << 28) -> float:
    """Bytes a second read by all threads from memory."""
    words = np.ones(size // 8, np.int64)
    return words.nbytes / _least([partial(_summed, part) for part in np.array_split(words, threads)])


def needed(queries: Integers, items: PackedTable) -> tuple[str, float] | None:
    """The instruction that limits the search, and how many of it a query and an item need."""
    kernel, _ = choose(queries, items)
    words = -(-items.dim // 64)
    if kernel is scan.scan_hamming and PROBES["vpopcntq"][-1]:
        return "vpopcntq", words / 8
    if kernel is scan.scan_tables:
        return "vpermb", words * LOOKUPS[items.bits] / 64
    if kernel in (scan.scan_small, scan.scan_bytes) and PROBES["vpdpbusd"][-1]:
        return "vpdpbusd", -(-items.dim // 4) * 4 / 64
    return None


def show_limits(report: Report, vectors: Vectors) -> None:
    """Print how close the searches of ``report`` come to the limits, and how much their times vary.

    A batch is limited by instructions, a single query by the bytes that it reads.
    """
    rates, bytes_per_second = instructions(report.threads), bandwidth(report.threads)
    heads = ["", "rounds", "spread: batch", "spread: single", "instructions per query and item"]
    heads += ["batch: limit, ms", "reached", "single: limit, ms", "reached"]
    found = {row.name: row for row in report.rows}
    rows = []
    for label, (users, items) in vectors.coded.items():
        for name, asked in (
            (f"rectoolkit {label}", Integers.of(users.take(slice(0, report.batch)).unpack())),
            (f"rectoolkit {label}, float query", Integers.of_floats(vectors.queries[: report.batch], items.segments)),
        ):
            row, need = found[name], needed(asked, items)
            cells = [name, str(row.rounds), f"{row.batch_spread:.0%}", f"{row.single_spread:.0%}"]
            if need is None:
                cells += ["", "", ""]
            else:
                limit = need[1] * items.num_rows / rates[need[0]] * 1e3
                cells += [f"{need[1]:.3f} {need[0]}", f"{limit:.3f}", f"{limit / row.batch_ms:.0%}"]
            limit = items.planes.nbytes / bytes_per_second * 1e3
            rows.append([*cells, f"{limit:.2f}", f"{limit / row.p50_ms:.0%}"])
    notes = [f"{bytes_per_second / 1e9:.2f}e9 bytes read per second, {report.threads} threads together"]
    notes += [f"{rate / 1e9:.2f}e9 {name} of 64 bytes per second" for name, rate in rates.items()]
    print_table(heads, rows, "limits of the machine", None if console.is_terminal else 140)
    for note in notes:
        console.print(note, soft_wrap=True)


def _least(tasks: list[Callable[[], Any]]) -> float:
    """Seconds until all tasks, one thread each, are done: the fastest of several rounds."""

    def round_of(pool: ThreadPoolExecutor) -> float:
        start = perf_counter()
        for done in [pool.submit(task) for task in tasks]:
            done.result()
        return perf_counter() - start

    with ThreadPoolExecutor(len(tasks)) as pool:
        round_of(pool)
        return min(round_of(pool) for _ in range(ROUNDS))
