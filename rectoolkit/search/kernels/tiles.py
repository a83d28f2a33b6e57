"""Tiles of 64 items, taken from the packed rows: bit-planes as words, sums and scales of the codes, codes as bytes.

The first half is LLVM IR, the second the loops that use it. Arrays in the first half come with an offset in bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from rectoolkit.search.kernels.compiling import (
    F32,
    I1,
    I8,
    I32,
    I64,
    INSTRUCTION_SET,
    LANES,
    Loop,
    call,
    compiled,
    inlined,
    load,
    part,
    pointer,
    splat,
    store,
    vector,
)

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


@part
def load_bits(flat: Any, begin: int, end: int, start: int, width: int) -> Any:
    """Bits ``start`` to ``start + width`` (64 at most) of the bytes ``begin`` to ``end``, as one word."""
    byte, shift = begin + (start >> 3), np.uint64(start & 7)
    word = np.uint64(0)
    if byte + 8 <= end:
        word = word_at(flat, byte)
    else:
        for n in range(end - byte):
            word |= np.uint64(flat[byte + n]) << np.uint64(8 * n)
    word >>= shift
    if shift and byte + 8 < end:
        word |= np.uint64(flat[byte + 8]) << (np.uint64(64) - shift)
    if width < 64:
        word &= (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    return word


@part
def load_tile(items: Any, layout: Any, base: int, count: int, words: Any) -> None:
    """Fill ``words``, S blocks of (bits, words, 64), with the planes of ``count`` items from ``base`` on."""
    bits, row = items.planes.shape[1], items.planes.shape[2]
    whole = layout.widths[0] == 8 * row and row % 8 == 0 and count == LANES  # one segment that fills its words
    if whole and bits * row in (16, 32, 64):
        split_planes(items.flat, base * bits * row, words, 0, bits * row // 8)
        return
    for segment in range(len(layout.widths)):
        block, num_words = layout.word_at[segment] * bits * LANES, layout.words[segment]
        first, width = layout.starts[segment], layout.widths[segment]
        aligned = first % 8 == 0 and width % 64 == 0
        for lane in range(count):
            for bit in range(bits):
                begin = ((base + lane) * bits + bit) * row
                place = block + bit * num_words * LANES + lane
                if aligned:
                    for word in range(num_words):
                        words[place + word * LANES] = word_at(items.flat, begin + first // 8 + 8 * word)
                else:
                    for word in range(num_words):
                        left = min(64, width - 64 * word)
                        words[place + word * LANES] = load_bits(items.flat, begin, begin + row, first + 64 * word, left)


@part
def grid_of(items: Any, item: int, segment: int) -> Any:
    """Scale and offset of one item's block, float32: ``PackedTable.affine``."""
    if len(items.halves):
        scale = bits_float(np.uint32(items.halves[item, segment]) << np.uint32(16))
        return scale, scale * items.offset[0, segment]
    scale = items.scale[item if len(items.scale) > 1 else 0, segment]
    return scale, items.offset[item if len(items.offset) > 1 else 0, segment]


@part
def load_side(items: Any, layout: Any, base: int, count: int, words: Any, side: Any, totals: Any) -> None:
    """Fill ``totals`` (S, 64), sums of codes, and ``side`` (S, 3, 64): scale, scale * sum, offset."""
    bits = items.planes.shape[1]
    for segment in range(len(layout.widths)):
        scale, offset = grid_of(items, base, segment)
        if len(items.halves) or len(items.scale) > 1 or len(items.offset) > 1:
            for lane in range(count):
                side[segment, 0, lane], side[segment, 2, lane] = grid_of(items, base + lane, segment)
        elif side[segment, 0, 0] != scale or side[segment, 2, 0] != offset:
            side[segment, 0, :], side[segment, 2, :] = scale, offset
        sum_planes(
            words, layout.word_at[segment] * bits * LANES * 8, bits, layout.words[segment],
            side, segment * 12 * LANES, totals, segment * 4 * LANES,
        )  # fmt: skip


@part
def unpack_lane(layout: Any, words: Any, bits: int, lane: int, row: Any, at: int) -> None:
    """The codes of one item of a tile as bytes, in the tile's layout, from ``row[at]`` on."""
    for segment in range(len(layout.widths)):
        num_words = layout.words[segment]
        for word in range(num_words):
            first = (layout.word_at[segment] * bits + word) * LANES + lane
            unpack_word(words, first * 8, num_words * LANES * 8, bits, row, at + (layout.word_at[segment] + word) * 64)


@part
def padded_tile(items: Any, base: int, count: int, words: Any) -> None:
    """Copy the rows of ``count`` items, of whole words, where reading past their end does no harm."""
    row = items.planes.shape[1] * items.planes.shape[2]
    for word in range(count * row // 8):
        words[word] = word_at(items.flat, base * row + 8 * word)


@compiled
def sum_range(flat: Any, bits: int, row: int) -> Any:
    """The least and the largest sum of the codes of an item, of ``bits`` planes of ``row`` bytes (whole words)."""
    low, high = np.int64(1) << 40, np.int64(0)
    for item in range(len(flat) // (bits * row)):
        total = np.int64(0)
        for bit in range(bits):
            for word in range(0, row, 8):
                count = count_bits(word_at(flat, (item * bits + bit) * row + word))
                total += np.int64(count << np.uint64(bit))
        low, high = min(low, total), max(high, total)
    return low, high
