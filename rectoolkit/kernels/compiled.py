"""The compiled inner loops: filters over tiles of 64 items, and the exact scoring of what passes them.

A *filter* computes, for 64 items at once, a float32 upper estimate of the score and gives back a 64-bit mask of the
items whose estimate reaches the query's threshold. Its error is bounded beforehand (``plan.margin``), so nothing
that belongs in the answer is ever dropped; what passes (about k ln(N / k) of N items) is scored exactly by the
formula of ``codes.dot`` and kept in a heap of the k best keys, whose smallest entry raises the threshold.

Three filters, chosen by ``plan``:

- ``scan_hamming``: 1-bit codes on symmetric grids: XOR, popcount and compare, all in integers.
- ``scan_planes``: any widths, few queries: AND and popcount over pairs of bit-planes; nothing is unpacked.
- ``scan_bytes``: any widths, many queries: a tile is unpacked once, then multiplied by 8-bit dot-product instructions
  (vpdpbusd with AVX-512 or AVX-VNNI, vpmaddubsw with AVX2, plain multiplications elsewhere).

The loops are LLVM IR on 64-lane vectors, which numba compiles for the machine at hand. All of it is in one file
because numba's cache notices changes of the file that holds a function, not of what it calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = 64
QUERY_TILE = 4

class Layout(NamedTuple):
    """Where a tile keeps each segment: its words begin at a multiple of 64 dims, so that segments never share one.

    int64 (S) each: ``starts`` the first dim, ``widths`` in dims, ``word_at`` the first word, ``words`` how many.
    """

    starts: Any
    widths: Any
    word_at: Any
    words: Any


class Items(NamedTuple):
    """The catalogue: ``planes`` uint8 (N, bits, bytes) and ``flat`` the same as one row of bytes, ``scale`` and
    ``offset`` float32 (N or 1, S), ``ids`` int64 (N, or empty where ids are row numbers), ``banned`` bool (N, or empty).
    """

    planes: Any
    flat: Any
    scale: Any
    offset: Any
    ids: Any
    banned: Any


class Asked(NamedTuple):
    """Q queries in a tile's layout of ``width`` dims (padded to a multiple of 4 queries).

    For the filters: ``signed`` int8 (Q, width), ``planes`` uint64 (Q, words, query bits), ``coefficients`` float32
    (S, Q, 3), ``margin`` float64 (Q). For exact scores: ``values`` int64 (Q, width), equal to ``signed`` + ``centre``
    (int64, Q) where that is not -1, and ``scale``, ``offset`` and ``sums`` float64 (Q, S). ``indptr`` and ``seen`` int64: the items excluded query by query, sorted; indptr empty
    for none.
    """

    signed: Any
    planes: Any
    coefficients: Any
    margin: Any
    values: Any
    centre: Any
    scale: Any
    offset: Any
    sums: Any
    indptr: Any
    seen: Any


I1, I8, I16, I32, I64, F32 = (*(ir.IntType(n) for n in (1, 8, 16, 32, 64)), ir.FloatType())
FMA = ("contract",)

Function = TypeVar("Function", bound="Callable[..., Any]")


def compiled(function: Function) -> Function:
    """``function`` compiled on its first call, kept on disk where a folder for it can be written."""
    try:
        result: Function = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # a read-only installation without a home directory: compile again in each process
        result = numba.njit(nogil=True, error_model="numpy")(function)
    return result


def _instruction_set() -> str:
    """Which 8-bit dot product the machine that numba compiles for has."""
    if config.CPU_NAME or config.CPU_FEATURES:
        features = {name[1:] for name in (config.CPU_FEATURES or "").split(",") if name.startswith("+")}
    else:
        features = {name for name, present in llvmlite.binding.get_host_cpu_features().items() if present}
    if {"avx512vnni", "avx512bw"} <= features:
        return "vnni512"
    if "avxvnni" in features:
        return "vnni256"
    return "avx2" if "avx2" in features else "plain"


INSTRUCTION_SET = _instruction_set()
DOT_LANES = {"vnni512": 16, "vnni256": 8, "avx2": 8, "plain": 8}[INSTRUCTION_SET]
DOT_VECTORS = {"vnni512": 4, "vnni256": 2, "avx2": 2, "plain": 1}[INSTRUCTION_SET]
PLANE_LANES = 32 if INSTRUCTION_SET == "vnni512" else 16
SIGNED_LIMIT = 64 if INSTRUCTION_SET == "avx2" else 128  # 2 * 255 * 64 is the most a 16-bit pair sum of vpmaddubsw holds


def _vector(element: Any, lanes: int) -> Any:
    return ir.VectorType(element, lanes)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    kind = _vector(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_vector(I32, lanes), [0] * lanes))


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(_declare(builder.module, kind, name), arguments)


def _declare(module: Any, kind: Any, name: str) -> Any:
    return module.globals.get(name) or ir.Function(module, kind, name)


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any, place: int) -> Any:
    """The data of the array argument at ``place``, as bytes, moved by the offset (in bytes) that follows it."""
    array = context.make_array(signature.args[place])(context, builder, arguments[place])
    data = builder.bitcast(array.data, I8.as_pointer())
    return builder.gep(data, [arguments[place + 1]])


def _load(builder: Any, pointer: Any, offset: Any, kind: Any, align: int = 1) -> Any:
    place = builder.gep(pointer, [offset if isinstance(offset, ir.Value) else I64(offset)])
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=align)


def _store(builder: Any, value: Any, pointer: Any, offset: int) -> None:
    place = builder.gep(pointer, [I64(offset)])
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=1)


class _Loop:
    """A counted loop whose body maps carried values to their next: ``builder`` stands after it when it is done."""

    def __init__(self, builder: Any, count: Any, start: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> None:
        before = builder.block
        head, tail = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        carried = [builder.phi(value.type) for value in start]
        following = body(index, carried)
        step = builder.add(index, I64(1))
        index.add_incoming(I64(0), before)
        index.add_incoming(step, builder.block)
        for phi, first, following_value in zip(carried, start, following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(following_value, builder.block)
        builder.cbranch(builder.icmp_signed("<", step, count), head, tail)
        builder.position_at_end(tail)
        self.values = following


def _dot4(builder: Any, total: Any, items: Any, query: Any) -> Any:
    """total (i32 lanes) + the products of four unsigned bytes of ``items`` with four signed bytes of ``query``."""
    lanes = DOT_LANES
    if INSTRUCTION_SET.startswith("vnni"):
        name = f"llvm.x86.avx512.vpdpbusd.{lanes * 32}"
        return _call(builder, name, total.type, total, items, _splat(builder, query, lanes))
    if INSTRUCTION_SET == "avx2":
        bytes_, words = _vector(I8, 32), _vector(I16, 16)
        wide = builder.bitcast(_splat(builder, query, lanes), bytes_)
        pairs = _call(builder, "llvm.x86.avx2.pmadd.ub.sw", words, builder.bitcast(items, bytes_), wide)
        ones = ir.Constant(words, [1] * 16)
        return builder.add(total, _call(builder, "llvm.x86.avx2.pmadd.wd", _vector(I32, 8), pairs, ones))
    for byte in range(4):
        shift = ir.Constant(items.type, [8 * byte] * lanes)
        item = builder.and_(builder.lshr(items, shift), ir.Constant(items.type, [255] * lanes))
        signed = builder.ashr(builder.shl(query, I32(24 - 8 * byte)), I32(24))
        total = builder.add(total, builder.mul(item, _splat(builder, signed, lanes)))
    return total


def _estimate(builder: Any, product: Any, side: Any, coefficients: Any, query: int, lane: int, lanes: int) -> Any:
    """a * (scale * product) + b * (scale * sum) + c * offset for ``lanes`` items from ``lane`` on, float32."""
    kind = _vector(F32, lanes)
    scale, scaled_sum, offset = (_load(builder, side, 4 * (LANES * row + lane), kind) for row in range(3))
    a, b, c = (_splat(builder, _load(builder, coefficients, 4 * (3 * query + n), F32), lanes) for n in range(3))
    product = builder.fmul(builder.sitofp(product, kind), scale)
    rest = builder.fadd(builder.fmul(b, scaled_sum, FMA), builder.fmul(c, offset, FMA), FMA)
    return builder.fadd(builder.fmul(a, product, FMA), rest, FMA)


def _put_estimate(builder: Any, estimate: Any, out: Any, query: int, lane: int, add: Any) -> None:
    """Write the estimate, or add it to that of the segments before where ``add`` is set."""
    place = 4 * (LANES * query + lane)
    kind = estimate.type
    before = builder.select(add, _load(builder, out, place, kind), ir.Constant(kind, [0.0] * kind.count))
    _store(builder, builder.fadd(estimate, before), out, place)


@intrinsic  # type: ignore[untyped-decorator]
def dot_tile(
    typing: Any, items: Any, at: Any, groups: Any, queries: Any, query_at: Any, stride: Any, side: Any, side_at: Any,
    coefficients: Any, coefficients_at: Any, out: Any, out_at: Any, add: Any,
) -> Any:  # fmt: skip
    """Estimates (4 queries, 64 items) of one segment from unpacked bytes: items (groups, 64, 4), queries (4, stride)."""
    arguments = (items, at, groups, queries, query_at, stride, side, side_at, coefficients, coefficients_at, out, out_at, add)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = [_pointer(context, builder, signature, values, n) for n in (0, 3, 6, 8, 10)]
        item_data, query_data, side_data, coefficient_data, out_data = place
        kind = _vector(I32, DOT_LANES)
        for lane in range(0, LANES, DOT_LANES * DOT_VECTORS):
            lane_starts = [lane + DOT_LANES * n for n in range(DOT_VECTORS)]

            def step(group: Any, totals: list[Any], lane_starts: list[int] = lane_starts) -> list[Any]:
                row = builder.mul(group, I64(4 * LANES))
                tiles = [_load(builder, item_data, builder.add(row, I64(4 * s)), kind) for s in lane_starts]
                result = []
                for query in range(QUERY_TILE):
                    byte = builder.add(builder.mul(group, I64(4)), builder.mul(values[5], I64(query)))
                    four = _load(builder, query_data, byte, I32)
                    mine = totals[query * DOT_VECTORS : (query + 1) * DOT_VECTORS]
                    result += [_dot4(builder, t, tile, four) for t, tile in zip(mine, tiles, strict=True)]
                return result

            zero = ir.Constant(kind, [0] * DOT_LANES)
            totals = _Loop(builder, values[2], [zero] * (QUERY_TILE * DOT_VECTORS), step).values
            for n, total in enumerate(totals):
                query, start = n // DOT_VECTORS, lane_starts[n % DOT_VECTORS]
                estimate = _estimate(builder, total, side_data, coefficient_data, query, start, DOT_LANES)
                _put_estimate(builder, estimate, out_data, query, start, values[12])
        return context.get_dummy_value()

    return types.void(*arguments), generate


@intrinsic  # type: ignore[untyped-decorator]
def planes_tile(
    typing: Any, items: Any, at: Any, item_bits: Any, words: Any, queries: Any, query_at: Any, query_bits: Any,
    side: Any, side_at: Any, coefficients: Any, coefficients_at: Any, out: Any, out_at: Any, add: Any,
) -> Any:  # fmt: skip
    """Estimates (1 query, 64 items) of one segment from bit-planes: items (bits, words, 64), query (words, bits)."""
    arguments = (
        items, at, item_bits, words, queries, query_at, query_bits, side, side_at, coefficients, coefficients_at, out, out_at, add,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = [_pointer(context, builder, signature, values, n) for n in (0, 4, 7, 9, 11)]
        item_data, query_data, side_data, coefficient_data, out_data = place
        kind = _vector(I64, PLANE_LANES)
        zero = ir.Constant(kind, [0] * PLANE_LANES)
        for lane in range(0, LANES, PLANE_LANES):

            def over_planes(plane: Any, outer: list[Any], lane: int = lane) -> list[Any]:
                def over_words(word: Any, middle: list[Any]) -> list[Any]:
                    row = builder.add(builder.mul(plane, values[3]), word)
                    tile = _load(builder, item_data, builder.add(builder.mul(row, I64(8 * LANES)), I64(8 * lane)), kind)

                    def over_query_planes(bit: Any, inner: list[Any]) -> list[Any]:
                        at = builder.mul(builder.add(builder.mul(word, values[6]), bit), I64(8))
                        mask = _splat(builder, _load(builder, query_data, at, I64), PLANE_LANES)
                        count = _call(builder, f"llvm.ctpop.v{PLANE_LANES}i64", kind, builder.and_(tile, mask))
                        shift = _splat(builder, builder.add(plane, bit), PLANE_LANES)
                        return [builder.add(inner[0], builder.shl(count, shift))]

                    return _Loop(builder, values[6], middle, over_query_planes).values

                return _Loop(builder, values[3], outer, over_words).values

            total = _Loop(builder, values[2], [zero], over_planes).values[0]
            small = builder.trunc(total, _vector(I32, PLANE_LANES))
            estimate = _estimate(builder, small, side_data, coefficient_data, 0, lane, PLANE_LANES)
            _put_estimate(builder, estimate, out_data, 0, lane, values[13])
        return context.get_dummy_value()

    return types.void(*arguments), generate


@intrinsic  # type: ignore[untyped-decorator]
def reached(typing: Any, estimates: Any, at: Any, threshold: Any) -> Any:
    """The 64-bit mask of the 64 estimates that are not below ``threshold``; NaN counts as not below."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = _pointer(context, builder, signature, values, 0)
        row = _load(builder, data, 0, _vector(F32, LANES))
        passed = builder.fcmp_unordered(">=", row, _splat(builder, values[2], LANES))
        return builder.bitcast(passed, I64)

    return types.uint64(estimates, at, threshold), generate


@intrinsic  # type: ignore[untyped-decorator]
def near(typing: Any, items: Any, at: Any, words: Any, query: Any, query_at: Any, limit: Any) -> Any:
    """The 64-bit mask of the 64 items, words (words, 64), within Hamming distance ``limit`` of the query's words."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = _pointer(context, builder, signature, values, 0)
        query_data = _pointer(context, builder, signature, values, 3)
        kind = _vector(I64, LANES)

        def step(word: Any, totals: list[Any]) -> list[Any]:
            row = _load(builder, data, builder.mul(word, I64(8 * LANES)), kind)
            mask = _splat(builder, _load(builder, query_data, builder.mul(word, I64(8)), I64), LANES)
            return [builder.add(totals[0], _call(builder, f"llvm.ctpop.v{LANES}i64", kind, builder.xor(row, mask)))]

        total = _Loop(builder, values[2], [ir.Constant(kind, [0] * LANES)], step).values[0]
        return builder.bitcast(builder.icmp_signed("<=", total, _splat(builder, values[5], LANES)), I64)

    return types.uint64(items, at, words, query, query_at, limit), generate


@intrinsic  # type: ignore[untyped-decorator]
def unpack_word(typing: Any, words: Any, at: Any, stride: Any, bits: Any, out: Any, out_at: Any) -> Any:
    """64 codes as bytes from their bit-planes: a word each, ``stride`` bytes apart."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = _pointer(context, builder, signature, values, 0)
        out = _pointer(context, builder, signature, values, 4)
        kind = _vector(I8, LANES)

        def step(bit: Any, codes: list[Any]) -> list[Any]:
            word = _load(builder, data, builder.mul(bit, values[2]), I64)
            value = _splat(builder, builder.trunc(builder.shl(I64(1), bit), I8), LANES)
            chosen = builder.select(builder.bitcast(word, _vector(I1, LANES)), value, ir.Constant(kind, [0] * LANES))
            return [builder.or_(codes[0], chosen)]

        codes = _Loop(builder, values[3], [ir.Constant(kind, [0] * LANES)], step).values[0]
        _store(builder, codes, out, 0)
        return context.get_dummy_value()

    return types.void(words, at, stride, bits, out, out_at), generate


@intrinsic  # type: ignore[untyped-decorator]
def split_planes(typing: Any, flat: Any, at: Any, out: Any, out_at: Any, row: Any) -> Any:
    """64 items of ``row`` (2, 4 or 8) words each, from byte ``at`` on, transposed to (row, 64) words."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = _pointer(context, builder, signature, values, 0)
        out = _pointer(context, builder, signature, values, 2)
        done = builder.append_basic_block("split")
        kind = _vector(I64, 8)
        for row in (2, 4, 8):
            matching, following = builder.append_basic_block("row"), builder.append_basic_block("next")
            builder.cbranch(builder.icmp_signed("==", values[4], I64(row)), matching, following)
            builder.position_at_end(matching)
            for lane in range(0, LANES, 8):
                parts = [_load(builder, data, (lane * row + 8 * n) * 8, kind) for n in range(row)]
                while len(parts) > 1 or parts[0].type.count < 8 * row:
                    parts = _joined(builder, parts)
                for word in range(row):
                    places = ir.Constant(_vector(I32, 8), [n * row + word for n in range(8)])
                    column = builder.shuffle_vector(parts[0], ir.Constant(parts[0].type, ir.Undefined), places)
                    _store(builder, column, out, (word * LANES + lane) * 8)
            builder.branch(done)
            builder.position_at_end(following)
        builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(flat, at, out, out_at, row), generate


def _joined(builder: Any, parts: list[Any]) -> list[Any]:
    """Neighbouring vectors put together, two by two."""
    size = parts[0].type.count
    order = ir.Constant(_vector(I32, 2 * size), list(range(2 * size)))
    return [builder.shuffle_vector(parts[n], parts[n + 1], order) for n in range(0, len(parts), 2)]


@intrinsic  # type: ignore[untyped-decorator]
def sum_planes(
    typing: Any, words: Any, at: Any, bits: Any, num_words: Any, side: Any, side_at: Any, totals: Any, totals_at: Any
) -> Any:
    """The 64 sums of codes of a segment into ``totals`` (64) int32, and times the scales into the second row of ``side``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data, side_data, out = (_pointer(context, builder, signature, values, n) for n in (0, 4, 6))
        kind = _vector(I64, PLANE_LANES)
        for lane in range(0, LANES, PLANE_LANES):

            def over_planes(plane: Any, outer: list[Any], lane: int = lane) -> list[Any]:
                def over_words(word: Any, inner: list[Any]) -> list[Any]:
                    row = builder.add(builder.mul(plane, values[3]), word)
                    tile = _load(builder, data, builder.add(builder.mul(row, I64(8 * LANES)), I64(8 * lane)), kind)
                    count = _call(builder, f"llvm.ctpop.v{PLANE_LANES}i64", kind, tile)
                    return [builder.add(inner[0], builder.shl(count, _splat(builder, plane, PLANE_LANES)))]

                return _Loop(builder, values[3], outer, over_words).values

            zero = ir.Constant(kind, [0] * PLANE_LANES)
            total = _Loop(builder, values[2], [zero], over_planes).values[0]
            small = builder.trunc(total, _vector(I32, PLANE_LANES))
            _store(builder, small, out, 4 * lane)
            floats = _vector(F32, PLANE_LANES)
            scaled = builder.fmul(builder.sitofp(small, floats), _load(builder, side_data, 4 * lane, floats))
            _store(builder, scaled, side_data, 4 * (LANES + lane))
        return context.get_dummy_value()

    return types.void(words, at, bits, num_words, side, side_at, totals, totals_at), generate


@intrinsic  # type: ignore[untyped-decorator]
def dot_bytes(typing: Any, signed: Any, at: Any, row: Any, row_at: Any, words: Any) -> Any:
    """The inner product of 64 * ``words`` signed bytes with as many unsigned ones."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        left, right = (_pointer(context, builder, signature, values, n) for n in (0, 2))
        kind, wide = _vector(I8, LANES), _vector(I32, LANES)

        def step(word: Any, totals: list[Any]) -> list[Any]:
            place = builder.mul(word, I64(LANES))
            product = builder.mul(
                builder.sext(_load(builder, left, place, kind), wide), builder.zext(_load(builder, right, place, kind), wide)
            )
            return [builder.add(totals[0], product)]

        total = _Loop(builder, values[4], [ir.Constant(wide, [0] * LANES)], step).values[0]
        return builder.sext(_call(builder, f"llvm.vector.reduce.add.v{LANES}i32", I32, total), I64)

    return types.int64(signed, at, row, row_at, words), generate


@intrinsic  # type: ignore[untyped-decorator]
def interleave(typing: Any, rows: Any, at: Any, stride: Any, out: Any, out_at: Any) -> Any:
    """Transpose 16 x 16 words of four bytes: rows ``stride`` bytes apart become 16 groups 4 * 64 bytes apart."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = _pointer(context, builder, signature, values, 0)
        out = _pointer(context, builder, signature, values, 3)
        kind = _vector(I32, 16)
        rows = [_load(builder, data, builder.mul(values[2], I64(n)), kind) for n in range(16)]
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
            _store(builder, row, out, 4 * LANES * n)
        return context.get_dummy_value()

    return types.void(rows, at, stride, out, out_at), generate


@intrinsic  # type: ignore[untyped-decorator]
def count_bits(typing: Any, word: Any) -> Any:
    """The number of set bits."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.uint64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typing: Any, word: Any) -> Any:
    """The place of the lowest set bit of a word that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], I1(1))

    return types.int64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def float_bits(typing: Any, value: Any) -> Any:
    """The 32 bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], I32)

    return types.uint32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def bits_float(typing: Any, value: Any) -> Any:
    """The float32 of 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], F32)

    return types.float32(types.uint32), generate


@intrinsic  # type: ignore[untyped-decorator]
def word_at(typing: Any, data: Any, at: Any) -> Any:
    """Eight bytes from byte ``at`` on as one little-endian word."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _load(builder, _pointer(context, builder, signature, values, 0), 0, I64)

    return types.uint64(data, at), generate


@compiled
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


@compiled
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


@compiled
def load_side(items: Any, layout: Any, base: int, count: int, words: Any, side: Any, totals: Any) -> None:
    """Fill ``totals`` (S, 64), sums of codes, and ``side`` (S, 3, 64): scale, scale * sum, offset."""
    bits = items.planes.shape[1]
    for segment in range(len(layout.widths)):
        if len(items.scale) > 1:
            for lane in range(count):
                side[segment, 0, lane] = items.scale[base + lane, segment]
        elif side[segment, 0, 0] != items.scale[0, segment]:
            side[segment, 0, :] = items.scale[0, segment]
        if len(items.offset) > 1:
            for lane in range(count):
                side[segment, 2, lane] = items.offset[base + lane, segment]
        elif side[segment, 2, 0] != items.offset[0, segment]:
            side[segment, 2, :] = items.offset[0, segment]
        sum_planes(
            words, layout.word_at[segment] * bits * LANES * 8, bits, layout.words[segment],
            side, segment * 12 * LANES, totals, segment * 4 * LANES,
        )  # fmt: skip


@compiled
def unpack_lane(layout: Any, words: Any, bits: int, lane: int, row: Any, at: int) -> None:
    """The codes of one item of a tile as bytes, in the tile's layout, from ``row[at]`` on."""
    for segment in range(len(layout.widths)):
        num_words = layout.words[segment]
        for word in range(num_words):
            first = (layout.word_at[segment] * bits + word) * LANES + lane
            unpack_word(words, first * 8, num_words * LANES * 8, bits, row, at + (layout.word_at[segment] + word) * 64)


@compiled
def affine(items: Any, asked: Any, query: int, item: int, segment: int, width: int, product: int, total: int) -> float:
    """One segment's part of a score: the formula of ``codes.dot`` in its order of operations."""
    su, ou, user = asked.scale[query, segment], asked.offset[query, segment], asked.sums[query, segment]
    si = np.float64(items.scale[item if len(items.scale) > 1 else 0, segment])
    oi = np.float64(items.offset[item if len(items.offset) > 1 else 0, segment])
    return ((su * si) * product + (su * user) * oi) + ((ou * si) * total + (width * ou) * oi)


@compiled
def exact_score(
    items: Any, layout: Any, asked: Any, query: int, item: int, row: Any, at: int, totals: Any, lane: int
) -> float:
    """The score of one pair whose codes are given as bytes and their sums in ``totals`` (S, 64)."""
    score = 0.0
    for segment in range(len(layout.widths)):
        start, width = layout.word_at[segment] * 64, layout.widths[segment]
        total = np.int64(totals[segment, lane])
        if asked.centre[query] >= 0:
            place = query * asked.signed.shape[1] + start
            product = dot_bytes(asked.signed, place, row, at + start, layout.words[segment]) + asked.centre[query] * total
        else:
            product = np.int64(0)
            for dim in range(start, start + width):
                product += asked.values[query, dim] * np.int64(row[at + dim])
        score += affine(items, asked, query, item, segment, width, product, total)
    return score


@compiled
def key_of(items: Any, item: int, score: float) -> Any:
    """``index.order_keys`` of one pair."""
    raw = float_bits(np.float32(score) + np.float32(0))
    ordered = raw ^ (np.uint32(0xFFFFFFFF) if raw >> np.uint32(31) else np.uint32(0x80000000))
    h = np.uint32(items.ids[item] if len(items.ids) else item)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    h ^= h >> np.uint32(16)
    return (np.uint64(ordered) << np.uint64(32)) | np.uint64(~h & np.uint32(0xFFFFFFFF))


@compiled
def rankable(items: Any, asked: Any, query: int, item: int) -> bool:
    """Whether an item is neither banned for all nor seen by this query."""
    if len(items.banned) and items.banned[item]:
        return False
    if len(asked.indptr) == 0:
        return True
    name = items.ids[item] if len(items.ids) else item
    low, high = asked.indptr[query], asked.indptr[query + 1]
    while low < high:
        middle = (low + high) // 2
        if asked.seen[middle] < name:
            low = middle + 1
        else:
            high = middle
    return not (low < asked.indptr[query + 1] and asked.seen[low] == name)


@compiled
def push(heap: Any, key: Any) -> None:
    """Replace the smallest entry, the first, by a larger ``key``; a heap starts full of zeros.

    Up to 256 entries are kept sorted, by one pass without branches (0.03 us at 50, a sift down 0.1); more as a heap.
    """
    size = len(heap)
    if size <= 256:
        for place in range(np.uint64(size - 1)):
            heap[place] = min(heap[place + np.uint64(1)], max(heap[place], key))
        heap[size - 1] = max(heap[size - 1], key)
        return
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = key


@compiled
def score_of(key: Any) -> float:
    """The float32 score of a key, as float64; -inf of the key 0."""
    if key == 0:
        return -np.inf
    ordered = np.uint32(key >> np.uint64(32))
    raw = ordered ^ (np.uint32(0x80000000) if ordered >> np.uint32(31) else np.uint32(0xFFFFFFFF))
    return np.float64(bits_float(np.uint32(raw)))


@compiled
def threshold(key: Any, margin: float) -> Any:
    """The estimate below which no item can beat ``key``: its score less every rounding on the way there."""
    score = score_of(key)
    lowest = score - margin - abs(score) * 2.0**-22 - 1e-37
    return np.float32(lowest - abs(lowest) * 2.0**-22)


@compiled
def consider(
    items: Any, layout: Any, asked: Any, query: int, base: int, mask: Any, words: Any, rows: Any, totals: Any, unpacked: bool,
    heap: Any,
) -> bool:  # fmt: skip
    """Score the items of a tile named by ``mask`` exactly and keep the best; whether the heap changed."""
    changed, width = False, asked.values.shape[1]
    while mask:
        lane = lowest_bit(mask)
        mask &= mask - np.uint64(1)
        if not unpacked:
            unpack_lane(layout, words, items.planes.shape[1], lane, rows, lane * width)
        key = key_of(
            items, base + lane, exact_score(items, layout, asked, query, base + lane, rows, lane * width, totals, lane)
        )
        if key > heap[0] and rankable(items, asked, query, base + lane):
            push(heap, key)
            changed = True
    return changed


@compiled
def scan_bytes(items: Any, layout: Any, asked: Any, heaps: Any, first: int, last: int, start: int, stop: int) -> None:
    """Rank items ``first`` to ``last`` (first a multiple of 64) for queries ``start`` to ``stop`` by byte products."""
    bits, width, segments = items.planes.shape[1], asked.values.shape[1], len(layout.widths)
    words, side = np.zeros(width * bits, np.uint64), np.zeros((segments, 3, LANES), np.float32)
    rows, tile = np.zeros(LANES * width, np.uint8), np.zeros(LANES * width, np.uint8)
    out = np.zeros(QUERY_TILE * LANES, np.float32)
    limits, totals = np.full(asked.signed.shape[0], -np.inf, np.float32), np.zeros((segments, LANES), np.int32)
    padded = asked.coefficients.shape[1]
    for base in range(first, last, LANES):
        count = min(LANES, last - base)
        valid = ~np.uint64(0) >> np.uint64(LANES - count)
        load_tile(items, layout, base, count, words)
        load_side(items, layout, base, count, words, side, totals)
        for lane in range(count):
            unpack_lane(layout, words, bits, lane, rows, lane * width)
        for dim in range(0, width, 64):
            for lane in range(0, LANES, 16):
                interleave(rows, lane * width + dim, width, tile, dim * LANES + lane * 4)
        for query in range(start, stop, QUERY_TILE):
            for segment in range(segments):
                at = layout.word_at[segment] * 64
                dot_tile(
                    tile, at * LANES, (layout.widths[segment] + 3) // 4, asked.signed, query * width + at, width,
                    side, segment * 12 * LANES, asked.coefficients, (segment * padded + query) * 12, out, 0, segment > 0,
                )  # fmt: skip
            for near_query in range(query, min(query + QUERY_TILE, stop)):
                mask = reached(out, (near_query - query) * 4 * LANES, limits[near_query]) & valid
                if mask and consider(items, layout, asked, near_query, base, mask, words, rows, totals, True, heaps[near_query]):
                    limits[near_query] = threshold(heaps[near_query, 0], asked.margin[near_query])


@compiled
def scan_planes(items: Any, layout: Any, asked: Any, heaps: Any, first: int, last: int, start: int, stop: int) -> None:
    """The same by AND and popcount over pairs of bit-planes."""
    bits, width, segments = items.planes.shape[1], asked.values.shape[1], len(layout.widths)
    words, side = np.zeros(width * bits, np.uint64), np.zeros((segments, 3, LANES), np.float32)
    rows, out = np.zeros(LANES * width, np.uint8), np.zeros(LANES, np.float32)
    limits, totals = np.full(asked.signed.shape[0], -np.inf, np.float32), np.zeros((segments, LANES), np.int32)
    query_bits, padded = asked.planes.shape[2], asked.coefficients.shape[1]
    for base in range(first, last, LANES):
        count = min(LANES, last - base)
        valid = ~np.uint64(0) >> np.uint64(LANES - count)
        load_tile(items, layout, base, count, words)
        load_side(items, layout, base, count, words, side, totals)
        for query in range(start, stop):
            for segment in range(segments):
                at = layout.word_at[segment]
                planes_tile(
                    words, at * bits * LANES * 8, bits, layout.words[segment],
                    asked.planes, (query * (width // 64) + at) * query_bits * 8, query_bits,
                    side, segment * 12 * LANES, asked.coefficients, (segment * padded + query) * 12, out, 0, segment > 0,
                )  # fmt: skip
            mask = reached(out, 0, limits[query]) & valid
            if mask and consider(items, layout, asked, query, base, mask, words, rows, totals, False, heaps[query]):
                limits[query] = threshold(heaps[query, 0], asked.margin[query])


@compiled
def farthest(items: Any, asked: Any, dims: int, query: int, key: Any) -> int:
    """The Hamming distance beyond which no item can beat ``key``, on symmetric one-bit grids.

    There score = su si / 2 * (sum - distance) + (su sum - su dims / 2) oi, falling in the distance.
    """
    su, user = asked.scale[query, 0], asked.sums[query, 0]
    si, oi = np.float64(items.scale[0, 0]), np.float64(items.offset[0, 0])
    score = score_of(key)
    lowest = score - asked.margin[query] - abs(score) * 2.0**-22 - 1e-37
    distance = user - (lowest - (su * user - su * dims / 2) * oi) / (su * si / 2)
    if not distance < dims:
        return dims
    return np.int64(np.floor(max(distance, -2.0) + 1e-6))


@compiled
def consider_words(
    items: Any, asked: Any, query: int, base: int, mask: Any, words: Any, at: int, num_words: int, dims: int, heap: Any
) -> bool:
    """``consider`` for one-bit codes of one segment, straight from words (words, 64) that begin at byte ``at``."""
    changed = False
    while mask:
        lane = lowest_bit(mask)
        mask &= mask - np.uint64(1)
        product, total = np.int64(0), np.int64(0)
        for word in range(num_words):
            value = word_at(words, at + (word * LANES + lane) * 8)
            product += np.int64(count_bits(value & asked.planes[query, word, 0]))
            total += np.int64(count_bits(value))
        key = key_of(items, base + lane, affine(items, asked, query, base + lane, 0, dims, product, total))
        if key > heap[0] and rankable(items, asked, query, base + lane):
            push(heap, key)
            changed = True
    return changed


@compiled
def hamming_tile(
    items: Any, asked: Any, heaps: Any, limits: Any, base: int, words: Any, at: int, num_words: int, dims: int,
    start: int, stop: int, valid: Any,
) -> None:  # fmt: skip
    """One tile of ``scan_hamming``, whose words (words, 64) begin at byte ``at``."""
    for query in range(start, stop):
        mask = near(words, at, num_words, asked.planes, query * num_words * 8, limits[query]) & valid
        if mask and consider_words(items, asked, query, base, mask, words, at, num_words, dims, heaps[query]):
            limits[query] = farthest(items, asked, dims, query, heaps[query, 0])


@compiled
def scan_hamming(items: Any, layout: Any, asked: Any, heaps: Any, first: int, last: int, start: int, stop: int) -> None:
    """The same for one-bit codes on symmetric grids of one scale, by Hamming distance."""
    width, dims, num_words = asked.values.shape[1], layout.widths[0], layout.words[0]
    words = np.zeros(width, np.uint64)
    limits = np.full(asked.signed.shape[0], dims, np.int64)
    in_place = dims == 64 and items.planes.shape[2] == 8
    for base in range(first, last, LANES):
        count = min(LANES, last - base)
        valid = ~np.uint64(0) >> np.uint64(LANES - count)
        if in_place and count == LANES:
            hamming_tile(items, asked, heaps, limits, base, items.flat, base * 8, num_words, dims, start, stop, valid)
        else:
            load_tile(items, layout, base, count, words)
            hamming_tile(items, asked, heaps, limits, base, words, 0, num_words, dims, start, stop, valid)
