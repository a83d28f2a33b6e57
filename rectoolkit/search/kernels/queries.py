"""Queries and items as the scans take them, and the proof that their estimates lose nothing.

A scan sees a query as small integers: v = step * q + centre + error, with q of at most 8 bits and |error| <= e. Codes
fit as they are (step 1, error 0). Float queries are rounded, and so are wide codes if the processor requires it. With C
the sum of an item's codes, the product P = <v, c> is step * <q, c> + centre * C within e * C. Therefore

    scale_i * (a <q, c> + b C) + c offset_i,   a = su step, b = ou + su (centre + e), c = su sum + D ou

is an upper bound of the score if su and scale_i are not negative. Otherwise e enters the margin instead. The margin
also covers the float32 arithmetic of the estimate: a bound on the sum of its terms' magnitudes times 2^-20, where each
term is rounded at most six times at 2^-24.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rectoolkit.search.codes import ranks_by_hamming
from rectoolkit.search.kernels.compiling import INSTRUCTION_SET, LANES, aligned
from rectoolkit.search.kernels.lookup import LOOKUPS, tables_of
from rectoolkit.search.kernels.matrices import line_of
from rectoolkit.search.kernels.products import QUERY_TILE
from rectoolkit.search.kernels.tiles import sum_range

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.search.codes import Integers, PackedTable
    from rectoolkit.search.kernels.numpy_search import Question

    Array = npt.NDArray[Any]


Form = Literal["bytes", "planes", "tables", "small"]
ROWS_AT_ONCE = 1 << 20  # whose scales are looked at together
TABLE_TILES, TABLE_QUERIES = 16, 16  # 22 KB of indices and of tables each, at 2 bits and 64 dims: the tables stay in L1


class Layout(NamedTuple):
    """The place of each segment in a tile. Segments begin at a word of 64 dims, so that they never share one.

    int64 (S) each: ``starts`` the first dim, ``widths`` in dims, ``word_at`` the first word, ``words`` how many.
    """

    starts: Any
    widths: Any
    word_at: Any
    words: Any


class Items(NamedTuple):
    """The items of a scan.

    ``planes`` uint8 (N, bits, bytes), and ``flat`` the same as one row of bytes. ``scale`` and ``offset`` float32 (N or
    1, S), or ``halves`` uint16 (N, S) with ``offset`` (1, S) in their units; ``halves`` is empty elsewhere. ``ids`` (N,
    or empty if ids are row numbers), ``banned`` bool (N, or empty).
    """

    planes: Any
    flat: Any
    scale: Any
    halves: Any
    offset: Any
    ids: Any
    banned: Any


class Asked(NamedTuple):
    """Q queries of a scan, padded to a multiple of 4. Rows are laid out like a tile and ``width`` dims wide.

    Estimates use ``signed`` int8 (Q, width), ``planes`` uint64 (Q, words, query bits), ``coefficients`` float32
    (S, Q, 3) with a, b and c of the module, and ``margin`` float64 (Q). Scans by table use ``tables`` uint8 (Q, L, 64),
    scans by matrix ``small`` int8 (Q, 64), and both use ``line`` float64 (Q, 2). A scan leaves the others empty.

    Exact scores use ``values`` int64 (Q, width), and ``scale``, ``offset`` and ``sums`` float64 (Q, S). If ``centre``
    (int64, Q) is not -1, the values are ``signed`` + ``centre``.

    ``indptr`` and ``seen``, int64, list the excluded items of each query in order. ``indptr`` is empty without any.
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
    tables: Any
    small: Any
    line: Any
    indptr: Any
    seen: Any


class Work(NamedTuple):
    """The working memory of a scan.

    Of one tile of 64 items: ``words`` uint64 (bits * words, 64), ``side`` float32 (S, 3, 64), ``rows`` and ``tile``
    uint8 (64, width) and (width / 4, 64, 4), ``out`` float32 (4, 64), ``totals`` int32 (S, 64).
    By query: ``limits`` float64, for tables ``least`` uint8, for small integers ``lower`` int32.
    For tables: ``indices`` uint8 (TILES, L, 64), ``hits`` int64 and ``masks`` uint64 (QUERIES).
    """

    words: Any
    side: Any
    rows: Any
    tile: Any
    out: Any
    limits: Any
    totals: Any
    least: Any
    lower: Any
    indices: Any
    hits: Any
    masks: Any

    @classmethod
    def of(cls, bits: int, layout: Layout, queries: int) -> Work:
        """Memory for a scan of items of ``bits`` bits for this many queries."""
        segments, words = len(layout.widths), int(layout.words.sum())
        return cls(
            aligned(((words * bits + 1) * LANES,), np.uint64),
            np.zeros((segments, 3, LANES), np.float32),
            aligned((LANES * LANES * words,), np.uint8),
            aligned((LANES * LANES * words,), np.uint8),
            np.zeros(QUERY_TILE * LANES, np.float32),
            np.zeros(queries),
            np.zeros((segments, LANES), np.int32),
            np.zeros(queries, np.uint8),
            np.zeros(queries + QUERY_TILE, np.int32),
            aligned((TABLE_TILES * words * LOOKUPS.get(bits, 0) * LANES,), np.uint8),
            np.zeros(TABLE_QUERIES, np.int64),
            np.zeros(TABLE_QUERIES, np.uint64),
        )


def layout_of(segments: tuple[int, ...]) -> Layout:
    """The layout in which each segment begins at a word."""
    widths = np.array(segments, np.int64)
    words = -(-widths // 64)
    return Layout(np.cumsum(widths) - widths, widths, np.cumsum(words) - words, words)


def spread_dims(values: Array, layout: Layout) -> Array:
    """Rows (Q, D) in the layout of a tile (Q, 64 * words), zero between segments."""
    result = np.zeros((len(values), 64 * int(layout.words.sum())), values.dtype)
    for start, width, word in zip(layout.starts, layout.widths, layout.word_at, strict=True):
        result[:, 64 * word : 64 * word + width] = values[:, start : start + width]
    return result


def is_hamming(queries: Integers, items: PackedTable) -> bool:
    """Whether Hamming distance ranks: one bit on both sides, symmetric grids of the queries, one scale of the items."""
    codes = items.bits == 1 and bool(((queries.values == 0) | (queries.values == 1)).all())
    return codes and ranks_by_hamming(queries.scale, queries.offset, items)


def small_integers(values: Array, limit: int) -> tuple[Array, Array, Array, Array]:
    """v = step * q + centre + error: q int8 (Q, D) of magnitude <= limit, and step, centre, |error| (Q, 1)."""
    low, high = (f(values, axis=1, keepdims=True, initial=0.0) for f in (np.minimum.reduce, np.maximum.reduce))
    whole, none = np.ones_like(low), np.zeros_like(low)
    if values.size == 0 or (low.min() >= -limit and high.max() <= min(limit, 127) and _is_small_code(values)):
        return values.astype(np.int8), whole, none, none
    if limit == 128 and high.max() <= 255 and _is_small_code(values):
        return (values - 128).astype(np.int8), whole, none + 128.0, none
    most = min(limit, 127)
    centre = (low + high) / 2
    step = np.maximum((high - low) / 2 / most, np.finfo(np.float64).tiny)
    small = np.clip(np.rint((values - centre) / step), -most, most)
    error = np.abs(values - centre - small * step).max(axis=1, keepdims=True) * (1 + 1e-9)
    return small.astype(np.int8), step, centre, error


def ask(question: Question, layout: Layout, bounds: Bounds, form: Form) -> Asked:
    """Prepare the queries for a scan that takes them in ``form``."""
    queries, items, excluded = question.queries, question.items, question.masks.excluded
    num, segments = len(queries.values), len(queries.segments)
    padded = -(-num // QUERY_TILE) * QUERY_TILE
    near, step, centre, error = small_integers(queries.values, _most_signed(items) if form == "bytes" else 128)
    signed = np.zeros((padded, 64 * int(layout.words.sum())), np.int8)
    signed[:num] = spread_dims(near, layout)
    planes, looked_up = np.zeros((0, 0, 1), np.uint64), np.zeros((0, 0, LANES), np.uint8)
    coefficients, line = np.zeros((segments, 0, 3), np.float32), np.zeros((0, 2))
    small = np.zeros((padded if form == "small" else 0, LANES), np.int8)
    if form == "tables":
        looked_up, line, margin = tables_of(queries, items)
    elif form == "small":
        small[:num], line, margin = line_of(queries, items, bounds.sums)
    else:
        fitted = near, step, centre, error
        if form == "planes":
            fitted = _unsigned(queries.values)
            planes = _planes(spread_dims(fitted[0], layout))
        coefficients, margin = _estimates(queries, items, bounds, *fitted)
    scale, offset = (np.broadcast_to(a, (num, segments)) for a in (queries.scale, queries.offset))
    exact = (step == 1) & (error == 0)
    return Asked(
        signed,
        planes,
        coefficients,
        margin,
        spread_dims(queries.values.astype(np.int64), layout),
        np.where(exact, centre, -1)[:, 0].astype(np.int64),
        np.array(scale, order="C"),  # copies: numba compiles anew for a read-only array
        np.array(offset, order="C"),
        np.array(queries.sums, order="C"),
        looked_up,
        small,
        line,
        np.zeros(0, np.int64) if excluded is None else excluded.indptr,
        np.zeros(0, np.int64) if excluded is None else excluded.items,
    )


def _most_signed(items: PackedTable) -> int:
    """The largest signed byte of a query. With AVX2, two products must fit the 16 bits of vpmaddubsw."""
    return min(127, 32767 // (2 * ((1 << items.bits) - 1))) if INSTRUCTION_SET == "avx2" else 128


def _estimates(
    queries: Integers, items: PackedTable, bounds: Bounds, small: Array, step: Array, centre: Array, error: Array
) -> tuple[Array, Array]:
    """The coefficients a, b and c (S, Q padded, 3) of queries fitted by small integers, and their margin (Q)."""
    num, segments = len(queries.values), len(queries.segments)
    scale, offset = (np.broadcast_to(a, (num, segments)) for a in (queries.scale, queries.offset))
    widths = np.array(queries.segments, np.float64)
    rising = bounds.rising & (scale >= 0)
    a = scale * step
    b = offset + scale * centre + np.where(rising, scale * error, 0.0)
    c = scale * queries.sums + widths * offset
    top = float((1 << items.bits) - 1)
    products = np.abs(small.astype(np.float64)).sum(axis=1, keepdims=True) * top
    sizes = bounds.scale * (np.abs(a) * products + np.abs(b) * top * widths) + np.abs(c) * bounds.offset
    loose = np.where(rising, 0.0, np.abs(scale) * bounds.scale * error * top * widths)
    margin = (sizes.sum(axis=1) * (segments + 1) * 2.0**-21 + loose.sum(axis=1)) * (1 + 1e-9)
    # the reference adds (scale sum) offset_i and (width offset) offset_i apart: where they cancel, its float64 rounding
    # is larger than anything left of c
    lost = (np.abs(scale * queries.sums) + widths * np.abs(offset)) * bounds.offset
    largest = np.abs(queries.values).max(axis=1, initial=0.0, keepdims=True)
    lost = lost + (np.abs(scale) * largest + np.abs(offset)) * top * widths * bounds.scale
    margin = margin + lost.sum(axis=1) * (segments + 1) * 2.0**-50
    coefficients = np.zeros((segments, -(-num // QUERY_TILE) * QUERY_TILE, 3), np.float32)
    with np.errstate(over="ignore"):
        coefficients[:, :num] = np.stack((a, b, c), axis=2).transpose(1, 0, 2)
    return coefficients, margin


class Bounds:
    """Bounds over all items: the largest scale and offset of each segment, and the range of the sums of codes.

    ``rising`` (S,): whether no scale is negative. ``tame``: whether the scans can estimate with scales and offsets of
    these sizes.
    """

    def __init__(self, items: PackedTable) -> None:
        self._items = items
        largest, self.rising, self.tame = np.zeros((2, len(items.segments))), np.ones(len(items.segments), bool), True
        for start in range(0, max(1, items.num_rows), ROWS_AT_ONCE):
            scale, offset = items.affine(slice(start, start + ROWS_AT_ONCE))
            for place, array in enumerate((scale, offset)):
                largest[place] = np.maximum(largest[place], np.abs(array).max(axis=0, initial=0.0))
            self.rising &= scale.min(axis=0, initial=0.0) >= 0
            self.tame = self.tame and _within(scale) and _within(offset)
        self.scale, self.offset = largest

    @cached_property
    def sums(self) -> tuple[int, int]:
        """The least and the largest sum of an item's codes, found at first use."""
        planes = np.ascontiguousarray(self._items.planes)
        low, high = sum_range(planes.reshape(-1), *planes.shape[1:])
        return int(low), int(high)


def _is_small_code(values: Array) -> bool:
    return bool(values.min() >= 0 and values.max() <= 255)


def _unsigned(values: Array) -> tuple[Array, Array, Array, Array]:
    if values.size and _is_small_code(values):
        none = np.zeros((len(values), 1))
        return values.astype(np.uint8), none + 1, none, none
    small, step, centre, error = small_integers(values, 127)
    return (small.astype(np.int16) + 128).astype(np.uint8), step, centre - 128 * step, error


def _planes(codes: Array) -> Array:
    """Codes (Q, 64 * words) as words of bit-planes (Q, words, bits), as few as they need."""
    bits = max(1, int(codes.max(initial=0)).bit_length())
    planes = [np.packbits((codes >> bit) & 1, axis=1, bitorder="little").view("<u8") for bit in range(bits)]
    return np.ascontiguousarray(np.stack(planes, axis=2))


def tame(queries: Integers) -> bool:
    """Whether every magnitude stays far inside float32, in which the scans estimate. numpy ranks the others.

    With values, scales and offsets of 2^-50 to 2^40 (or 0), and dims up to 2^15, no estimate passes 2^120 or falls
    among the denormal numbers, whose relative error is not the 2^-24 that the margin counts on.
    """
    largest = np.abs(queries.values).max(axis=1, initial=0.0, keepdims=True)
    return _within(queries.scale * np.maximum(largest, 1)) and _within(queries.offset)


def _within(array: Array) -> bool:
    sizes = np.abs(array[array != 0])
    return not sizes.size or bool(sizes.min() >= 2.0**-50 and sizes.max() <= 2.0**40)
