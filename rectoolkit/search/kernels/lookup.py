"""Products by table lookup for 1 and 2 bits: the tables of a query, and the loops that look 64 items up in them.

Three 2-bit codes, or six 1-bit ones, are an index of six bits. A query has a table of 64 bytes for each such group, and
one instruction (vpermb, AVX512-VBMI) looks up a group of 64 items at once, where byte products take three or six.
64 dims of 2 bits take 22 lookups and 22 additions for 64 items; byte products take 64 instructions.

Let all items share one scale si > 0 and one offset oi. A query decoded to w then scores si <w, c> + oi (su sum + D ou).
A group of c has 64 values, whose sums of w c become bytes T = ceil((w c - least) / step). With S the sum of all L
lookups,

    score <= slope * S + start,   slope = si step,   start = si (all least) + oi (su sum + D ou)

The step is the lattice of the query where it fits (su / 2, for codes on symmetric grids: nothing is rounded then), else
the widest range of a lookup divided by the share of a byte that each lookup may take.
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
    I16,
    I64,
    LANES,
    aligned,
    call,
    cases,
    inlined,
    load,
    pointer,
    shuffle,
    splat,
    store,
    transposed,
    vector,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.search.codes import Integers, PackedTable

    Array = npt.NDArray[Any]

HAS_LOOKUP = {"avx512vbmi", "avx512bw"} <= FEATURES
LOOKUPS = {1: 11, 2: 22}  # of a word of 64 dims, by bits
SUMS = 3  # of bytes, each over a third of the lookups
LOOKUP_WORDS = (1, 2, 4)  # the rows that have a loop: 64, 128 and 256 dims
ROUNDED = 1e-5  # of a step, granted to what a grid's float32 offset is off its lattice


def has_tables(queries: Integers, items: PackedTable) -> bool:
    """Whether the items can be looked up: rows of that many dims, one positive scale and one offset."""
    whole = items.bits in LOOKUPS and items.dim in [64 * words for words in LOOKUP_WORDS]
    if not (HAS_LOOKUP and whole and len(queries.segments) == 1 and items.one_grid):
        return False
    return float(items.scale[0, 0]) > 0


def tables_of(queries: Integers, items: PackedTable) -> tuple[Array, Array, Array]:
    """The tables uint8 (Q, L, 64), ``slope`` and ``start`` float64 (Q, 2), and the margin float64 (Q) of rounding."""
    num, dim, bits = len(queries.values), items.dim, items.bits
    words, lookups, group = dim // 64, LOOKUPS[bits], 6 // bits
    most, top = 255 // -(-lookups // SUMS), (1 << bits) - 1
    weights = np.zeros((num, words, lookups * group))
    decoded = queries.scale * queries.values + queries.offset
    weights[:, :, :64] = decoded.reshape(num, words, 64)
    groups = weights.reshape(num, words * lookups, group)
    index = np.arange(64)
    bit = np.arange(bits)
    taken = (index >> (group * bit[:, None] + np.arange(group))[:, :, None]) & 1
    levels = np.tensordot(1 << bit, taken, 1)
    least = top * np.minimum(groups, 0).sum(axis=2, keepdims=True)
    widest = top * np.abs(groups).sum(axis=2).max(axis=1, initial=0.0)
    lattice = np.broadcast_to(np.abs(queries.scale[:, 0]) / 2, num)
    doubled = 2 * np.broadcast_to(queries.offset[:, 0], num)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = doubled / (2 * lattice)
        fits = (np.abs(steps - np.rint(steps)) < ROUNDED / 64) & (widest <= lattice * most * (1 + ROUNDED / 2))
    step = np.where(fits, lattice, widest / most)
    step = np.where(step > 0, step, 1.0)[:, None, None]
    sums = groups @ levels.astype(np.float64)
    tables = aligned(sums.shape, np.uint8)
    tables[:] = np.ceil((sums - least) / step - ROUNDED)
    scale, offset = float(items.scale[0, 0]), float(items.offset[0, 0])
    su, ou = queries.scale[:, 0], queries.offset[:, 0]
    rounding = words * lookups * ROUNDED * step[:, 0, 0]
    start = scale * (least.sum(axis=(1, 2)) + rounding) + offset * (su * queries.sums[:, 0] + dim * ou)
    magnitudes = np.abs(su) * np.abs(queries.values).sum(axis=1) + dim * np.abs(ou)
    margin = (scale * top + abs(offset)) * magnitudes * 2.0**-40
    return tables, np.stack((scale * step[:, 0, 0], start), axis=1), margin


@inlined
def index_tile(typing: Any, flat: Any, at: Any, bits: Any, words: Any, out: Any, out_at: Any) -> Any:
    """The indices (words, lookups, 64) of the 64 items of ``bits`` (1 or 2) planes of ``words`` words from ``at`` on.

    Index g of a word holds its dims 3g to 3g + 2, plane 0 in the lower bits (two bits), or 6g to 6g + 5 (one bit); the
    last goes round to dim 0, and its table counts those for nothing.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = pointer(context, builder, signature, values, 0)
        out = pointer(context, builder, signature, values, 4)
        eight, bytes_ = vector(I64, 8), vector(I8, LANES)

        def shifted(word: Any, offsets: list[int]) -> Any:
            places = ir.Constant(bytes_, [offset % 64 for offset in offsets] * 8)
            return call(builder, "llvm.x86.avx512.pmultishift.qb.512", bytes_, places, builder.bitcast(word, bytes_))

        def written(bits: int, words: int) -> None:
            stride = bits * words  # words of an item
            for word in range(words):
                rounds = range(0, LOOKUPS[bits], 8)
                columns: list[list[Any]] = [[] for _ in rounds]
                for lane in range(0, LANES, 8):
                    planes = _columns(builder, data, lane * stride, stride, [bit * words + word for bit in range(bits)])
                    for column, first in zip(columns, rounds, strict=True):
                        if bits == 1:
                            chosen = shifted(planes[0], [6 * (first + n) for n in range(8)])
                        else:
                            low = shifted(planes[0], [3 * (first + n) for n in range(8)])
                            high = shifted(planes[1], [3 * (first + n) - 3 for n in range(8)])
                            seven = ir.Constant(bytes_, [7] * LANES)
                            chosen = builder.or_(
                                builder.and_(low, seven), builder.and_(high, ir.Constant(bytes_, [0xF8 - 256] * LANES))
                            )
                        turned = shuffle(builder, chosen, chosen, [n % 8 * 8 + n // 8 for n in range(LANES)])
                        column.append(builder.bitcast(turned, eight))
                for column, first in zip(columns, rounds, strict=True):
                    for n, row in enumerate(transposed(builder, column)):
                        if first + n < LOOKUPS[bits]:
                            store(builder, row, out, (word * LOOKUPS[bits] + first + n) * LANES)

        cases(
            builder,
            builder.add(builder.mul(values[2], I64(8)), values[3]),
            {8 * bits + words: partial(written, bits, words) for bits in LOOKUPS for words in LOOKUP_WORDS},
        )
        return context.get_dummy_value()

    return types.void(flat, at, bits, words, out, out_at), generate


def _columns(builder: Any, data: Any, start: int, stride: int, places: list[int]) -> list[Any]:
    """The words at ``places`` of each of 8 rows of ``stride`` words, from word ``start`` on."""
    kind = vector(I64, 8)
    parts = [load(builder, data, (start + 8 * n) * 8, kind) for n in range(stride)]
    if stride == 1:
        return parts
    columns = []
    for place in places:
        column, each = parts, 8 // stride
        chosen = [n * stride + place for n in range(each)]
        while len(column) > 1:  # pairwise, so that each step is one instruction
            every = [*chosen, *(8 + n for n in chosen)]
            column = [shuffle(builder, column[n], column[n + 1], _filled(every)) for n in range(0, len(column), 2)]
            chosen = list(range(len(every)))
        columns.append(column[0])
    return columns


def _filled(places: list[int]) -> list[int]:
    """Eight places: the rest may hold anything."""
    return [*places, *[0] * (8 - len(places))]


@inlined
def lookup_tile(
    typing: Any, indices: Any, at: Any, bits: Any, words: Any, tables: Any, tables_at: Any, limits: Any, limits_at: Any,
    num: Any, hits: Any, hits_at: Any, masks: Any, masks_at: Any,
) -> Any:  # fmt: skip
    """Find the queries that have items at or above their limit in a tile of 64 items. Returns their number.

    Their row numbers are written to ``hits`` (int64), and a 64-bit mask of the items of each to ``masks``. ``tables``
    are uint8 (num, words * lookups, 64). A limit (uint8) is compared with the sum of the looked-up values, divided by
    twice the number of words and rounded up.
    """
    arguments = (
        indices, at, bits, words, tables, tables_at, limits, limits_at, num, hits, hits_at, masks, masks_at,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data, table_data, limit_data, hit_data, mask_data = (
            pointer(context, builder, signature, values, n) for n in (0, 4, 6, 9, 11)
        )
        bytes_ = vector(I8, LANES)
        count = builder.alloca(I64)
        builder.store(I64(0), count)

        def written(bits: int, words: int) -> None:
            lookups = LOOKUPS[bits]
            index = [load(builder, data, n * LANES, bytes_) for n in range(lookups * words)]
            before = builder.block
            head, tail = builder.append_basic_block("loop"), builder.append_basic_block("tail")
            builder.branch(head)
            builder.position_at_end(head)
            query, found = builder.phi(I64), builder.phi(I64)
            start = builder.mul(query, I64(lookups * words * LANES))
            table = builder.gep(table_data, [start])
            parts: list[Any] = []
            for word in range(words):
                sums: list[Any] = [None] * SUMS
                for n in range(lookups):
                    place = word * lookups + n
                    row = load(builder, table, place * LANES, bytes_)
                    part = call(builder, "llvm.x86.avx512.permvar.qi.512", bytes_, row, index[place])
                    sums[n % SUMS] = part if sums[n % SUMS] is None else builder.add(sums[n % SUMS], part)
                none = ir.Constant(bytes_, [0] * LANES)
                parts += [_halved(builder, sums[0], sums[1]), _halved(builder, sums[2], none)]
            while len(parts) > 2:
                parts = [_halved(builder, *parts[n : n + 2]) for n in range(0, len(parts), 2)]
            bound = call(builder, f"llvm.uadd.sat.v{LANES}i8", bytes_, *parts)
            limit = load(builder, builder.gep(limit_data, [query]), 0, I8)
            mask = builder.bitcast(builder.icmp_unsigned(">=", bound, splat(builder, limit, LANES)), I64)
            store(builder, query, builder.gep(hit_data, [builder.mul(found, I64(8))]), 0)
            store(builder, mask, builder.gep(mask_data, [builder.mul(found, I64(8))]), 0)
            following = builder.add(found, builder.zext(builder.icmp_unsigned("!=", mask, I64(0)), I64))
            step = builder.add(query, I64(1))
            for phi, first, then in ((query, I64(0), step), (found, I64(0), following)):
                phi.add_incoming(first, before)
                phi.add_incoming(then, builder.block)
            builder.cbranch(builder.icmp_signed("<", step, values[8]), head, tail)
            builder.position_at_end(tail)
            builder.store(following, count)

        cases(
            builder,
            builder.add(builder.mul(values[2], I64(8)), values[3]),
            {8 * bits + words: partial(written, bits, words) for bits in LOOKUPS for words in LOOKUP_WORDS},
        )
        return builder.load(count)

    return types.int64(*arguments), generate


def _halved(builder: Any, first: Any, second: Any) -> Any:
    """Half the sum of bytes, rounded up (vpavgb)."""
    kind, wide = first.type, vector(I16, LANES)
    one = ir.Constant(wide, [1] * LANES)
    total = builder.add(builder.add(builder.zext(first, wide), builder.zext(second, wide)), one)
    return builder.trunc(builder.lshr(total, one), kind)
