"""Products of a tile of 64 items with queries, as bytes, bit-planes or distances, written as LLVM IR.

Arrays come with an offset in bytes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from rectoolkit.search.kernels.compiling import (
    F32,
    I8,
    I16,
    I32,
    I64,
    INSTRUCTION_SET,
    LANES,
    Loop,
    call,
    inlined,
    load,
    pointer,
    splat,
    store,
    vector,
)
from rectoolkit.search.kernels.tiles import PLANE_LANES

QUERY_TILE = 4
FMA = ("contract",)
DOT_LANES = {"vnni512": 16, "vnni256": 8, "avx2": 8, "plain": 8}[INSTRUCTION_SET]
DOT_VECTORS = {"vnni512": 4, "vnni256": 2, "avx2": 2, "plain": 1}[INSTRUCTION_SET]


def _dot4(builder: Any, total: Any, items: Any, query: Any) -> Any:
    """total (i32 lanes) + the products of four unsigned bytes of ``items`` with four signed bytes of ``query``."""
    lanes = DOT_LANES
    if INSTRUCTION_SET.startswith("vnni"):
        name = f"llvm.x86.avx512.vpdpbusd.{lanes * 32}"
        return call(builder, name, total.type, total, items, splat(builder, query, lanes))
    if INSTRUCTION_SET == "avx2":
        bytes_, words = vector(I8, 32), vector(I16, 16)
        wide = builder.bitcast(splat(builder, query, lanes), bytes_)
        pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", words, builder.bitcast(items, bytes_), wide)
        ones = ir.Constant(words, [1] * 16)
        return builder.add(total, call(builder, "llvm.x86.avx2.pmadd.wd", vector(I32, 8), pairs, ones))
    for byte in range(4):
        shift = ir.Constant(items.type, [8 * byte] * lanes)
        item = builder.and_(builder.lshr(items, shift), ir.Constant(items.type, [255] * lanes))
        signed = builder.ashr(builder.shl(query, I32(24 - 8 * byte)), I32(24))
        total = builder.add(total, builder.mul(item, splat(builder, signed, lanes)))
    return total


def _estimate(builder: Any, product: Any, side: Any, coefficients: Any, query: int, lane: int, lanes: int) -> Any:
    """a * (scale * product) + b * (scale * sum) + c * offset for ``lanes`` items from ``lane`` on, float32."""
    kind = vector(F32, lanes)
    scale, scaled_sum, offset = (load(builder, side, 4 * (LANES * row + lane), kind) for row in range(3))
    a, b, c = (splat(builder, load(builder, coefficients, 4 * (3 * query + n), F32), lanes) for n in range(3))
    product = builder.fmul(builder.sitofp(product, kind), scale)
    rest = builder.fadd(builder.fmul(b, scaled_sum, FMA), builder.fmul(c, offset, FMA), FMA)
    return builder.fadd(builder.fmul(a, product, FMA), rest, FMA)


def _put_estimate(builder: Any, estimate: Any, out: Any, query: int, lane: int, add: Any) -> None:
    """Write the estimate, or add it to that of the segments before where ``add`` is set."""
    place = 4 * (LANES * query + lane)
    kind = estimate.type
    before = builder.select(add, load(builder, out, place, kind), ir.Constant(kind, [0.0] * kind.count))
    store(builder, builder.fadd(estimate, before), out, place)


@inlined
def dot_tile(
    typing: Any, items: Any, at: Any, groups: Any, queries: Any, query_at: Any, stride: Any, side: Any, side_at: Any,
    coefficients: Any, coefficients_at: Any, out: Any, out_at: Any, add: Any,
) -> Any:  # fmt: skip
    """Estimates (4 queries, 64 items) of a segment from unpacked bytes: items (groups, 64, 4), queries (4, stride)."""
    arguments = (
        items, at, groups, queries, query_at, stride, side, side_at, coefficients, coefficients_at, out, out_at, add,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = [pointer(context, builder, signature, values, n) for n in (0, 3, 6, 8, 10)]
        item_data, query_data, side_data, coefficient_data, out_data = place
        kind = vector(I32, DOT_LANES)
        for lane in range(0, LANES, DOT_LANES * DOT_VECTORS):
            lane_starts = [lane + DOT_LANES * n for n in range(DOT_VECTORS)]

            def step(group: Any, totals: list[Any], lane_starts: list[int] = lane_starts) -> list[Any]:
                row = builder.mul(group, I64(4 * LANES))
                tiles = [load(builder, item_data, builder.add(row, I64(4 * s)), kind) for s in lane_starts]
                result = []
                for query in range(QUERY_TILE):
                    byte = builder.add(builder.mul(group, I64(4)), builder.mul(values[5], I64(query)))
                    four = load(builder, query_data, byte, I32)
                    mine = totals[query * DOT_VECTORS : (query + 1) * DOT_VECTORS]
                    result += [_dot4(builder, t, tile, four) for t, tile in zip(mine, tiles, strict=True)]
                return result

            zero = ir.Constant(kind, [0] * DOT_LANES)
            totals = Loop(builder, values[2], [zero] * (QUERY_TILE * DOT_VECTORS), step).values
            for n, total in enumerate(totals):
                query, start = n // DOT_VECTORS, lane_starts[n % DOT_VECTORS]
                estimate = _estimate(builder, total, side_data, coefficient_data, query, start, DOT_LANES)
                _put_estimate(builder, estimate, out_data, query, start, values[12])
        return context.get_dummy_value()

    return types.void(*arguments), generate


@inlined
def planes_tile(
    typing: Any, items: Any, at: Any, item_bits: Any, words: Any, queries: Any, query_at: Any, query_bits: Any,
    side: Any, side_at: Any, coefficients: Any, coefficients_at: Any, out: Any, out_at: Any, add: Any,
) -> Any:  # fmt: skip
    """Estimates (1 query, 64 items) of one segment from bit-planes: items (bits, words, 64), query (words, bits)."""
    arguments = (
        items, at, item_bits, words, queries, query_at, query_bits, side, side_at, coefficients, coefficients_at,
        out, out_at, add,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = [pointer(context, builder, signature, values, n) for n in (0, 4, 7, 9, 11)]
        item_data, query_data, side_data, coefficient_data, out_data = place
        kind = vector(I64, PLANE_LANES)
        zero = ir.Constant(kind, [0] * PLANE_LANES)
        for lane in range(0, LANES, PLANE_LANES):

            def over_planes(plane: Any, outer: list[Any], lane: int = lane) -> list[Any]:
                def over_words(word: Any, middle: list[Any]) -> list[Any]:
                    row = builder.add(builder.mul(plane, values[3]), word)
                    tile = load(builder, item_data, builder.add(builder.mul(row, I64(8 * LANES)), I64(8 * lane)), kind)

                    def over_query_planes(bit: Any, inner: list[Any]) -> list[Any]:
                        at = builder.mul(builder.add(builder.mul(word, values[6]), bit), I64(8))
                        mask = splat(builder, load(builder, query_data, at, I64), PLANE_LANES)
                        count = call(builder, f"llvm.ctpop.v{PLANE_LANES}i64", kind, builder.and_(tile, mask))
                        shift = splat(builder, builder.add(plane, bit), PLANE_LANES)
                        return [builder.add(inner[0], builder.shl(count, shift))]

                    return Loop(builder, values[6], middle, over_query_planes).values

                return Loop(builder, values[3], outer, over_words).values

            total = Loop(builder, values[2], [zero], over_planes).values[0]
            small = builder.trunc(total, vector(I32, PLANE_LANES))
            estimate = _estimate(builder, small, side_data, coefficient_data, 0, lane, PLANE_LANES)
            _put_estimate(builder, estimate, out_data, 0, lane, values[13])
        return context.get_dummy_value()

    return types.void(*arguments), generate


@inlined
def reached(typing: Any, estimates: Any, at: Any, threshold: Any) -> Any:
    """The 64-bit mask of the 64 estimates that are not below ``threshold``; NaN counts as not below."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = pointer(context, builder, signature, values, 0)
        row = load(builder, data, 0, vector(F32, LANES))
        passed = builder.fcmp_unordered(">=", row, splat(builder, values[2], LANES))
        return builder.bitcast(passed, I64)

    return types.uint64(estimates, at, threshold), generate


@inlined
def near(typing: Any, items: Any, at: Any, words: Any, query: Any, query_at: Any, limit: Any) -> Any:
    """The 64-bit mask of the 64 items, words (words, 64), within Hamming distance ``limit`` of the query's words."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = pointer(context, builder, signature, values, 0)
        query_data = pointer(context, builder, signature, values, 3)
        kind = vector(I64, LANES)

        def step(word: Any, totals: list[Any]) -> list[Any]:
            row = load(builder, data, builder.mul(word, I64(8 * LANES)), kind)
            mask = splat(builder, load(builder, query_data, builder.mul(word, I64(8)), I64), LANES)
            return [builder.add(totals[0], call(builder, f"llvm.ctpop.v{LANES}i64", kind, builder.xor(row, mask)))]

        total = Loop(builder, values[2], [ir.Constant(kind, [0] * LANES)], step).values[0]
        least = total
        while least.type.count > 8:  # nearly always nothing is near: 7 minima and one comparison instead of 8 masks
            half = least.type.count // 2
            low, high = (ir.Constant(vector(I32, half), list(range(n, n + half))) for n in (0, half))
            none = ir.Constant(least.type, ir.Undefined)
            low, high = builder.shuffle_vector(least, none, low), builder.shuffle_vector(least, none, high)
            least = builder.select(builder.icmp_signed("<", low, high), low, high)
        some = builder.bitcast(builder.icmp_signed("<=", least, splat(builder, values[5], 8)), I8)
        before, full, done = builder.block, builder.append_basic_block("full"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed("!=", some, I8(0)), full, done)
        builder.position_at_end(full)
        mask = builder.bitcast(builder.icmp_signed("<=", total, splat(builder, values[5], LANES)), I64)
        builder.branch(done)
        builder.position_at_end(done)
        result = builder.phi(I64)
        result.add_incoming(I64(0), before)
        result.add_incoming(mask, full)
        return result

    return types.uint64(items, at, words, query, query_at, limit), generate


@inlined
def dot_bytes(typing: Any, signed: Any, at: Any, row: Any, row_at: Any, words: Any) -> Any:
    """The inner product of 64 * ``words`` signed bytes with as many unsigned ones."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        left, right = (pointer(context, builder, signature, values, n) for n in (0, 2))
        kind, wide = vector(I8, LANES), vector(I32, LANES)

        def step(word: Any, totals: list[Any]) -> list[Any]:
            place = builder.mul(word, I64(LANES))
            signed = builder.sext(load(builder, left, place, kind), wide)
            unsigned = builder.zext(load(builder, right, place, kind), wide)
            return [builder.add(totals[0], builder.mul(signed, unsigned))]

        total = Loop(builder, values[4], [ir.Constant(wide, [0] * LANES)], step).values[0]
        return builder.sext(call(builder, f"llvm.vector.reduce.add.v{LANES}i32", I32, total), I64)

    return types.int64(signed, at, row, row_at, words), generate
