"""Products by table: six bits of an item's codes choose one of 64 sums held in a vector register (vpermb, AVX512-VBMI).

Three 2-bit codes, or six 1-bit ones, are an index of six bits; a query has a table of 64 bytes for each, and a lookup
does for 64 items at once what three or six multiplications do. 64 dims of 2 bits take 22 lookups and 22 additions for
64 items, where byte products take 64 instructions. The bytes are rounded up (``plan.tables_of``), so that their sum
bounds the product from above.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types

from rectoolkit.search.kernels.machine import (
    FEATURES,
    I8,
    I16,
    I32,
    I64,
    call,
    inlined,
    load,
    pointer,
    splat,
    store,
    vector,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = 64
HAS_LOOKUP = {"avx512vbmi", "avx512bw"} <= FEATURES
LOOKUPS = {1: 11, 2: 22}  # of a word of 64 dims, by bits
SUMS = 3  # of bytes, each over a third of the lookups
LOOKUP_WORDS = (1, 2, 4)  # the rows that have a loop: 64, 128 and 256 dims


def shuffle(builder: Any, first: Any, second: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(vector(I32, len(places)), places))


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Vectors of as many elements as there are vectors, transposed."""
    size, step = len(rows), len(rows) // 2
    while step:  # swap blocks of step x step across the diagonal
        low = [n if not n & step else size + n - step for n in range(size)]
        high = [n + step if not n & step else size + n for n in range(size)]
        following = list(rows)
        for n in range(size):
            if not n & step:
                pair = rows[n], rows[n + step]
                following[n], following[n + step] = shuffle(builder, *pair, low), shuffle(builder, *pair, high)
        rows, step = following, step // 2
    return rows


def cases(builder: Any, value: Any, chosen: dict[int, Callable[[], None]]) -> None:
    """The code of the case that ``value`` is, or of none."""
    done = builder.append_basic_block("done")
    for case, generate in chosen.items():
        matching, following = builder.append_basic_block("case"), builder.append_basic_block("next")
        builder.cbranch(builder.icmp_signed("==", value, I64(case)), matching, following)
        builder.position_at_end(matching)
        generate()
        builder.branch(done)
        builder.position_at_end(following)
    builder.branch(done)
    builder.position_at_end(done)


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
    """Which of ``num`` queries have some of 64 items at or above their limit: how many queries, their numbers (int64)
    in ``hits`` and the 64-bit masks of items in ``masks``. ``tables`` uint8 (num, words * lookups, 64); ``limits``
    uint8 are of the sum of what is looked up, divided by twice the words and rounded up.
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
