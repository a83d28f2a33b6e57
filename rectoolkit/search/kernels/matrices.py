"""Products by bit matrices for 2 to 8 bits and 64 dims: codes from bit-planes (GFNI), multiplied as bytes (VNNI).

A word of 64 dims has ``bits`` planes of eight bytes. Byte j of all planes is a matrix of 8 x 8 bits, whose transpose
is the codes of dims 8j to 8j + 7. So one permutation of bytes (vpermb) and one vgf2p8affineqb make 64 codes from their
planes, where masks and additions need two or three instructions for each plane.

For one query the products are summed as they come, and two or four items share a vector (``near_rows``). For many
queries the codes are written out and reused (``unpack_rows``, ``near_tile``). Both compare integers with one limit for
each query, so nothing is scaled:

A query decoded to w is step * q + centre + error, with q of signed bytes and |error| <= e. Let all items share one
scale si > 0 and one offset oi. With C the sum of an item's codes, between the least and the largest of the catalogue
(``Bounds.sums``), and P = <q, c>,

    score <= si (step P + (centre + e) C) + oi (su sum + D ou) <= slope * P + start

Codes on a grid that is symmetric about 0 are odd multiples of su / 2. Up to 7 bits neither centre nor error is left. At
8 bits a centre of su / 2 is left, which takes half the spread of C.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types

from rectoolkit.search.kernels.compiling import (
    FEATURES,
    I8,
    I32,
    I64,
    INSTRUCTION_SET,
    LANES,
    Loop,
    call,
    cases,
    inlined,
    load,
    pointer,
    shuffle,
    splat,
    store,
    vector,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.search.codes import Integers, PackedTable

    Array = npt.NDArray[Any]

HAS_MATRICES = INSTRUCTION_SET == "vnni512" and {"gfni", "avx512vbmi"} <= FEATURES
MATRIX_QUERIES = 4  # a batch is multiplied four queries at a time
MATRIX_BITS = range(2, 9)
BYTES, SUMS = vector(I8, LANES), vector(I32, 16)


def has_matrices(queries: Integers, items: PackedTable) -> bool:
    """Whether the items can be multiplied so: 64 dims, one positive scale and one offset."""
    whole = items.dim == 64 and items.bits in MATRIX_BITS
    if not (HAS_MATRICES and whole and len(queries.segments) == 1 and items.one_grid):
        return False
    return float(items.scale[0, 0]) > 0


def line_of(queries: Integers, items: PackedTable, sums: tuple[int, int]) -> tuple[Array, Array, Array]:
    """q int8 (Q, D), ``slope`` and ``start`` float64 (Q, 2), and the margin float64 (Q) of rounding.

    ``sums`` are the least and the largest sum of an item's codes.
    """
    num, dim = queries.values.shape
    su, ou = (np.broadcast_to(a[:, 0], num) for a in (queries.scale, queries.offset))
    decoded = su[:, None] * queries.values + ou[:, None]
    largest = np.abs(decoded).max(axis=1, initial=0.0)
    size = np.where(su == 0, 1.0, np.abs(su))
    best = np.zeros((num, dim), np.int8)
    step, start, slack = np.ones(num), np.zeros(num), np.full(num, np.inf)
    for candidate, centre in (
        (size / 2, np.zeros(num)),
        (size, ou + su * 128),
        (np.where(largest > 0, largest / 127, 1.0), np.zeros(num)),
    ):
        if (slack <= step).all():
            break  # a unit of the product at most: nothing to better
        if (largest > 128 * candidate + np.abs(centre)).all():
            continue
        near = np.rint((decoded - centre[:, None]) / candidate[:, None])
        error = np.abs(decoded - centre[:, None] - near * candidate[:, None]).max(axis=1, initial=0.0) * (1 + 1e-9)
        low, high = centre - error, centre + error
        loose = np.maximum(high * sums[0], high * sums[1])
        loose[np.abs(near + 0.5).max(axis=1, initial=0.0) > 127.5] = np.inf
        lost = loose - np.minimum(low * sums[0], low * sums[1])
        better = lost < slack
        best[better] = near[better].astype(np.int8)
        step, start, slack = (
            np.where(better, new, old) for new, old in ((candidate, step), (loose, start), (lost, slack))
        )
    scale, offset = float(items.scale[0, 0]), float(items.offset[0, 0])
    start = scale * start + offset * (su * queries.sums[:, 0] + dim * ou)
    magnitudes = np.abs(su) * np.abs(queries.values).sum(axis=1) + dim * np.abs(ou)
    margin = (scale * ((1 << items.bits) - 1) + abs(offset)) * magnitudes * 2.0**-40
    return best, np.stack((scale * step, start), axis=1), margin


def _transposed(builder: Any, matrices: Any) -> Any:
    """The codes of eight matrices, whose byte 7 - p is plane p."""
    ones = ir.Constant(BYTES, [1 << n if n < 7 else -128 for n in range(8)] * 8)
    return call(builder, "llvm.x86.vgf2p8affineqb.512", BYTES, ones, matrices, I8(0))


def _products(builder: Any, total: Any, codes: Any, query: Any) -> Any:
    dwords = (builder.bitcast(each, SUMS) for each in (codes, query))
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", SUMS, total, *dwords)


@inlined
def near_rows(typing: Any, flat: Any, at: Any, bits: Any, query: Any, query_at: Any, least: Any) -> Any:
    """The 64-bit mask of the 64 items, rows of ``bits`` words, whose product with 64 signed bytes is ``least`` or more.

    Reads up to 64 bytes beyond the rows.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = pointer(context, builder, signature, values, 0)
        asked = pointer(context, builder, signature, values, 3)
        mask = builder.alloca(I64)
        builder.store(I64(0), mask)

        def compared(bits: int) -> None:
            share = 4 if bits <= 4 else 2  # items of a vector of sums
            dims = LANES // share
            parts = [_repeated(builder, asked, part * dims, dims) for part in range(share)]

            def sixteen(group: Any, carried: list[Any]) -> list[Any]:
                start = builder.gep(data, [builder.mul(group, I64(16 * 8 * bits))])
                sums = []
                for item in range(0, 16, share):
                    total = ir.Constant(SUMS, [0] * 16)
                    for part, codes in enumerate(_codes(builder, start, item, share, bits)):
                        total = _products(builder, total, codes, parts[part])
                    sums.append(total)
                total = _summed(builder, sums, share)
                passed = builder.icmp_signed(">=", total, splat(builder, values[5], 16))
                some = builder.zext(builder.bitcast(passed, ir.IntType(16)), I64)
                return [builder.or_(carried[0], builder.shl(some, builder.mul(group, I64(16))))]

            builder.store(Loop(builder, I64(4), [I64(0)], sixteen).values[0], mask)

        cases(builder, values[2], {bits: partial(compared, bits) for bits in MATRIX_BITS})
        return builder.load(mask)

    return types.uint64(flat, at, bits, query, query_at, least), generate


def _repeated(builder: Any, data: Any, start: int, size: int) -> Any:
    """``size`` bytes from ``start`` on, again and again."""
    part = load(builder, data, start, vector(I8, size))
    return shuffle(builder, part, part, [n % size for n in range(LANES)])


def _codes(builder: Any, start: Any, item: int, share: int, bits: int) -> list[Any]:
    """``share`` vectors of the codes of ``share`` items from ``item`` on: vector n has the n-th part of each."""
    held = {2: 4, 3: 2, 4: 2}.get(bits, 1)  # items in one load
    rows = [load(builder, start, (item + n) * 8 * bits, BYTES) for n in range(0, share, held)]
    rows = rows * 2 if len(rows) == 1 else rows
    each = 8 // share  # matrices of an item in a vector
    keep = ir.Constant(vector(ir.IntType(1), LANES), [7 - n % 8 < bits for n in range(LANES)])
    found = []
    for part in range(share):
        places = []
        for n in range(LANES):
            plane, matrix = min(7 - n % 8, bits - 1), n // 8
            owner, byte = matrix // each, part * each + matrix % each
            places.append(owner // held * LANES + (owner % held * bits + plane) * 8 + byte)
        matrices = shuffle(builder, rows[0], rows[1], places)
        if bits < 8:
            matrices = builder.select(keep, matrices, ir.Constant(BYTES, [0] * LANES))
        found.append(_transposed(builder, matrices))
    return found


def _summed(builder: Any, sums: list[Any], share: int) -> Any:
    """The sums of 16 items in order, from vectors that hold those of ``share`` items one after another."""
    quads = [range(n, n + 4) for n in range(0, 16, 4)]
    for _ in range(2):  # two sums to one within each quarter, of two vectors at a time
        even = [place for quad in quads for place in (quad[0], quad[2], 16 + quad[0], 16 + quad[2])]
        odd = [place + 1 for place in even]
        sums = [
            builder.add(shuffle(builder, sums[n], sums[n + 1], even), shuffle(builder, sums[n], sums[n + 1], odd))
            for n in range(0, len(sums), 2)
        ]
    if share == 4:
        (total,) = sums
        return shuffle(builder, total, total, [4 * (n % 4) + n // 4 for n in range(16)])
    first = [*quads[0], *quads[2], *(16 + n for n in (*quads[0], *quads[2]))]
    total = builder.add(
        shuffle(builder, sums[0], sums[1], first), shuffle(builder, sums[0], sums[1], [n + 4 for n in first])
    )
    return shuffle(builder, total, total, [8 * (n // 8) + 4 * (n % 2) + n % 8 // 2 for n in range(16)])


@inlined
def unpack_rows(typing: Any, flat: Any, at: Any, bits: Any, out: Any, out_at: Any) -> Any:
    """The codes of 64 items, rows of ``bits`` words, as 64 rows of 64 bytes. Reads up to 64 bytes beyond the rows."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = pointer(context, builder, signature, values, 0)
        out = pointer(context, builder, signature, values, 3)
        row = builder.mul(values[2], I64(8))
        kept = builder.shl(I64(-1), builder.sub(I64(64), row))
        keep = builder.bitcast(splat(builder, kept, 8), BYTES)
        places = [(7 - n % 8) * 8 + n // 8 for n in range(LANES)]

        def eight(group: Any, carried: list[Any]) -> list[Any]:
            first = builder.mul(group, I64(8))
            for n in range(8):
                item = builder.add(first, I64(n))
                planes = load(builder, data, builder.mul(item, row), BYTES)
                matrices = builder.and_(shuffle(builder, planes, planes, places), keep)
                store(builder, _transposed(builder, matrices), builder.gep(out, [builder.mul(item, I64(LANES))]), 0)
            return carried

        Loop(builder, I64(8), [], eight)
        return context.get_dummy_value()

    return types.void(flat, at, bits, out, out_at), generate


@inlined
def near_tile(
    typing: Any, tile: Any, at: Any, groups: Any, queries: Any, query_at: Any, stride: Any, least: Any, least_at: Any,
    masks: Any, masks_at: Any,
) -> Any:  # fmt: skip
    """The 64-bit masks of 64 items, codes (groups, 64, 4), whose products with each of four queries, signed bytes
    ``stride`` apart, are ``least`` (int32) or more."""
    arguments = (tile, at, groups, queries, query_at, stride, least, least_at, masks, masks_at)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data, asked, limits, out = (pointer(context, builder, signature, values, n) for n in (0, 3, 6, 8))

        def step(group: Any, totals: list[Any]) -> list[Any]:
            row = builder.gep(data, [builder.mul(group, I64(4 * LANES))])
            codes = [load(builder, row, 64 * n, SUMS) for n in range(4)]
            result = []
            for query in range(MATRIX_QUERIES):
                place = builder.add(builder.mul(group, I64(4)), builder.mul(values[5], I64(query)))
                four = splat(builder, load(builder, asked, place, I32), 16)
                result += [_products(builder, totals[4 * query + n], codes[n], four) for n in range(4)]
            return result

        zero = ir.Constant(SUMS, [0] * 16)
        totals = Loop(builder, values[2], [zero] * 4 * MATRIX_QUERIES, step).values
        for query in range(MATRIX_QUERIES):
            limit = splat(builder, load(builder, limits, 4 * query, I32), 16)
            mask: Any = I64(0)
            for n in range(4):
                passed = builder.bitcast(builder.icmp_signed(">=", totals[4 * query + n], limit), ir.IntType(16))
                mask = builder.or_(mask, builder.shl(builder.zext(passed, I64), I64(16 * n)))
            store(builder, mask, out, 8 * query)
        return context.get_dummy_value()

    return types.void(*arguments), generate
