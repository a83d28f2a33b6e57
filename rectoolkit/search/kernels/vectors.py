"""Tiles of 64 items taken apart: words, sums, bytes and single numbers, written as LLVM IR that numba inlines.

Arrays come with an offset in bytes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from rectoolkit.search.kernels.machine import (
    F32,
    I1,
    I8,
    I32,
    I64,
    INSTRUCTION_SET,
    Loop,
    call,
    inlined,
    load,
    pointer,
    splat,
    store,
    vector,
)

LANES = 64
PLANE_LANES = 32 if INSTRUCTION_SET == "vnni512" else 16


@inlined
def unpack_word(typing: Any, words: Any, at: Any, stride: Any, bits: Any, out: Any, out_at: Any) -> Any:
    """64 codes as bytes from their bit-planes: a word each, ``stride`` bytes apart."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = pointer(context, builder, signature, values, 0)
        out = pointer(context, builder, signature, values, 4)
        kind = vector(I8, LANES)

        def step(bit: Any, codes: list[Any]) -> list[Any]:
            word = load(builder, data, builder.mul(bit, values[2]), I64)
            value = splat(builder, builder.trunc(builder.shl(I64(1), bit), I8), LANES)
            chosen = builder.select(builder.bitcast(word, vector(I1, LANES)), value, ir.Constant(kind, [0] * LANES))
            return [builder.or_(codes[0], chosen)]

        codes = Loop(builder, values[3], [ir.Constant(kind, [0] * LANES)], step).values[0]
        store(builder, codes, out, 0)
        return context.get_dummy_value()

    return types.void(words, at, stride, bits, out, out_at), generate


@inlined
def split_planes(typing: Any, flat: Any, at: Any, out: Any, out_at: Any, row: Any) -> Any:
    """64 items of ``row`` (2, 4 or 8) words each, from byte ``at`` on, transposed to (row, 64) words."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = pointer(context, builder, signature, values, 0)
        out = pointer(context, builder, signature, values, 2)
        done = builder.append_basic_block("split")
        kind = vector(I64, 8)
        for row in (2, 4, 8):
            matching, following = builder.append_basic_block("row"), builder.append_basic_block("next")
            builder.cbranch(builder.icmp_signed("==", values[4], I64(row)), matching, following)
            builder.position_at_end(matching)
            for lane in range(0, LANES, 8):
                parts = [load(builder, data, (lane * row + 8 * n) * 8, kind) for n in range(row)]
                while len(parts) > 1 or parts[0].type.count < 8 * row:
                    parts = _joined(builder, parts)
                for word in range(row):
                    places = ir.Constant(vector(I32, 8), [n * row + word for n in range(8)])
                    column = builder.shuffle_vector(parts[0], ir.Constant(parts[0].type, ir.Undefined), places)
                    store(builder, column, out, (word * LANES + lane) * 8)
            builder.branch(done)
            builder.position_at_end(following)
        builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(flat, at, out, out_at, row), generate


def _joined(builder: Any, parts: list[Any]) -> list[Any]:
    """Neighbouring vectors put together, two by two."""
    size = parts[0].type.count
    order = ir.Constant(vector(I32, 2 * size), list(range(2 * size)))
    return [builder.shuffle_vector(parts[n], parts[n + 1], order) for n in range(0, len(parts), 2)]


@inlined
def sum_planes(
    typing: Any, words: Any, at: Any, bits: Any, num_words: Any, side: Any, side_at: Any, totals: Any, totals_at: Any
) -> Any:
    """The 64 sums of codes of a segment into ``totals`` (64) int32, and times the scales into row 1 of ``side``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data, side_data, out = (pointer(context, builder, signature, values, n) for n in (0, 4, 6))
        kind = vector(I64, PLANE_LANES)
        for lane in range(0, LANES, PLANE_LANES):

            def over_planes(plane: Any, outer: list[Any], lane: int = lane) -> list[Any]:
                def over_words(word: Any, inner: list[Any]) -> list[Any]:
                    row = builder.add(builder.mul(plane, values[3]), word)
                    tile = load(builder, data, builder.add(builder.mul(row, I64(8 * LANES)), I64(8 * lane)), kind)
                    count = call(builder, f"llvm.ctpop.v{PLANE_LANES}i64", kind, tile)
                    return [builder.add(inner[0], builder.shl(count, splat(builder, plane, PLANE_LANES)))]

                return Loop(builder, values[3], outer, over_words).values

            zero = ir.Constant(kind, [0] * PLANE_LANES)
            total = Loop(builder, values[2], [zero], over_planes).values[0]
            small = builder.trunc(total, vector(I32, PLANE_LANES))
            store(builder, small, out, 4 * lane)
            floats = vector(F32, PLANE_LANES)
            scaled = builder.fmul(builder.sitofp(small, floats), load(builder, side_data, 4 * lane, floats))
            store(builder, scaled, side_data, 4 * (LANES + lane))
        return context.get_dummy_value()

    return types.void(words, at, bits, num_words, side, side_at, totals, totals_at), generate


@inlined
def interleave(typing: Any, rows: Any, at: Any, stride: Any, out: Any, out_at: Any) -> Any:
    """Transpose 16 x 16 words of four bytes: rows ``stride`` bytes apart become 16 groups 4 * 64 bytes apart."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = pointer(context, builder, signature, values, 0)
        out = pointer(context, builder, signature, values, 3)
        kind = vector(I32, 16)
        rows = [load(builder, data, builder.mul(values[2], I64(n)), kind) for n in range(16)]
        for step in (8, 4, 2, 1):  # swap blocks of step x step across the diagonal
            low = [n if not n & step else 16 + n - step for n in range(16)]
            high = [n + step if not n & step else 16 + n for n in range(16)]
            following = list(rows)
            for n in range(16):
                if not n & step:
                    pair = rows[n], rows[n + step]
                    following[n] = builder.shuffle_vector(*pair, ir.Constant(kind, low))
                    following[n + step] = builder.shuffle_vector(*pair, ir.Constant(kind, high))
            rows = following
        for n, row in enumerate(rows):
            store(builder, row, out, 4 * LANES * n)
        return context.get_dummy_value()

    return types.void(rows, at, stride, out, out_at), generate


@inlined
def count_bits(typing: Any, word: Any) -> Any:
    """The number of set bits."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.uint64(types.uint64), generate


@inlined
def lowest_bit(typing: Any, word: Any) -> Any:
    """The place of the lowest set bit of a word that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], I1(1))

    return types.int64(types.uint64), generate


@inlined
def float_bits(typing: Any, value: Any) -> Any:
    """The 32 bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], I32)

    return types.uint32(types.float32), generate


@inlined
def bits_float(typing: Any, value: Any) -> Any:
    """The float32 of 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], F32)

    return types.float32(types.uint32), generate


@inlined
def word_at(typing: Any, data: Any, at: Any) -> Any:
    """Eight bytes from byte ``at`` on as one little-endian word."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return load(builder, pointer(context, builder, signature, values, 0), 0, I64)

    return types.uint64(data, at), generate
