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
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np

from rectoolkit.kernels.vectors import (
    LANES,
    QUERY_TILE,
    bits_float,
    count_bits,
    dot_bytes,
    dot_tile,
    float_bits,
    interleave,
    lowest_bit,
    near,
    planes_tile,
    reached,
    split_planes,
    sum_planes,
    unpack_word,
    word_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")


def compiled(function: Function) -> Function:
    """``function`` compiled on its first call, kept on disk where a folder for it can be written.

    Without numba's reference counts (``_nrt``): they would cost 40 atomic operations a tile, 0.1 us, on counters that
    all threads share. So nothing here allocates an array; what a scan works in comes as ``Work``.
    """
    compiler: Any = numba.njit
    try:
        result: Function = compiler(nogil=True, cache=True, error_model="numpy", _nrt=False)(function)
    except RuntimeError:  # a read-only installation without a home directory: compile again in each process
        result = compiler(nogil=True, error_model="numpy", _nrt=False)(function)
    return result


def part(function: Function) -> Function:
    """``function`` as a part of the scans that call it, which pass it a hundred values."""
    compiler: Any = numba.njit
    result: Function = compiler(forceinline=True, error_model="numpy", _nrt=False)(function)
    return result


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


@part
def unpack_lane(layout: Any, words: Any, bits: int, lane: int, row: Any, at: int) -> None:
    """The codes of one item of a tile as bytes, in the tile's layout, from ``row[at]`` on."""
    for segment in range(len(layout.widths)):
        num_words = layout.words[segment]
        for word in range(num_words):
            first = (layout.word_at[segment] * bits + word) * LANES + lane
            unpack_word(words, first * 8, num_words * LANES * 8, bits, row, at + (layout.word_at[segment] + word) * 64)


@part
def affine(items: Any, asked: Any, query: int, item: int, segment: int, width: int, product: Any, total: Any) -> Any:
    """One segment's part of a score: the formula of ``codes.dot`` in its order of operations."""
    su, ou, user = asked.scale[query, segment], asked.offset[query, segment], asked.sums[query, segment]
    si = np.float64(items.scale[item if len(items.scale) > 1 else 0, segment])
    oi = np.float64(items.offset[item if len(items.offset) > 1 else 0, segment])
    return ((su * si) * product + (su * user) * oi) + ((ou * si) * total + (width * ou) * oi)


@part
def exact_score(
    items: Any, layout: Any, asked: Any, query: int, item: int, row: Any, at: int, totals: Any, lane: int
) -> Any:
    """The score of one pair whose codes are given as bytes and their sums in ``totals`` (S, 64)."""
    score = 0.0
    for segment in range(len(layout.widths)):
        start, width = layout.word_at[segment] * 64, layout.widths[segment]
        total = np.int64(totals[segment, lane])
        if asked.centre[query] >= 0:
            place = query * asked.signed.shape[1] + start
            product = dot_bytes(asked.signed, place, row, at + start, layout.words[segment])
            product += asked.centre[query] * total
        else:
            product = np.int64(0)
            for dim in range(start, start + width):
                product += asked.values[query, dim] * np.int64(row[at + dim])
        score += affine(items, asked, query, item, segment, width, product, total)
    return score


@part
def key_of(items: Any, item: int, score: float) -> Any:
    """``index.order_keys`` of one pair."""
    raw = float_bits(np.float32(score) + np.float32(0))
    ordered = raw ^ (np.uint32(0xFFFFFFFF) if raw >> np.uint32(31) else np.uint32(0x80000000))
    h = np.uint32(items.ids[item] if len(items.ids) else item)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    h ^= h >> np.uint32(16)
    return (np.uint64(ordered) << np.uint64(32)) | np.uint64(~h & np.uint32(0xFFFFFFFF))


@part
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


@part
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


@part
def score_of(key: Any) -> Any:
    """The float32 score of a key, as float64; -inf of the key 0."""
    if key == 0:
        return -np.inf
    ordered = np.uint32(key >> np.uint64(32))
    raw = ordered ^ (np.uint32(0x80000000) if ordered >> np.uint32(31) else np.uint32(0xFFFFFFFF))
    return np.float64(bits_float(np.uint32(raw)))


@part
def threshold(key: Any, margin: float) -> Any:
    """The estimate below which no item can beat ``key``: its score less every rounding on the way there."""
    score = score_of(key)
    lowest = score - margin - abs(score) * 2.0**-22 - 1e-37
    return np.float32(lowest - abs(lowest) * 2.0**-22)


@part
def consider(
    items: Any, layout: Any, asked: Any, query: int, base: int, mask: Any, words: Any, rows: Any, totals: Any,
    unpacked: bool, heap: Any,
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
def scan_bytes(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any,
    first: int, last: int, step: int, start: int, stop: int,
) -> None:  # fmt: skip
    """Rank items for queries ``start`` to ``stop`` by byte products: ``first`` (a multiple of 64) to ``last``, every
    ``step``-th tile. Nothing that cannot beat a query's key in ``floors`` need be found."""
    bits, width, segments = items.planes.shape[1], asked.values.shape[1], len(layout.widths)
    words, side, rows, tile, out, limits, totals = work
    for query in range(start, stop):
        limits[query] = threshold(floors[query], asked.margin[query])
    padded = asked.coefficients.shape[1]
    for base in range(first, last, step * LANES):
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
                    side, segment * 12 * LANES, asked.coefficients, (segment * padded + query) * 12,
                    out, 0, segment > 0,
                )  # fmt: skip
            for q in range(query, min(query + QUERY_TILE, stop)):
                mask = reached(out, (q - query) * 4 * LANES, np.float32(limits[q])) & valid
                if mask and consider(items, layout, asked, q, base, mask, words, rows, totals, True, heaps[q]):
                    limits[q] = max(limits[q], threshold(heaps[q, 0], asked.margin[q]))


@compiled
def scan_planes(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any,
    first: int, last: int, step: int, start: int, stop: int,
) -> None:  # fmt: skip
    """The same by AND and popcount over pairs of bit-planes."""
    bits, width, segments = items.planes.shape[1], asked.values.shape[1], len(layout.widths)
    words, side, rows, _, out, limits, totals = work
    for query in range(start, stop):
        limits[query] = threshold(floors[query], asked.margin[query])
    query_bits, padded = asked.planes.shape[2], asked.coefficients.shape[1]
    for base in range(first, last, step * LANES):
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
                    side, segment * 12 * LANES, asked.coefficients, (segment * padded + query) * 12,
                    out, 0, segment > 0,
                )  # fmt: skip
            mask = reached(out, 0, np.float32(limits[query])) & valid
            if mask and consider(items, layout, asked, query, base, mask, words, rows, totals, False, heaps[query]):
                limits[query] = max(limits[query], threshold(heaps[query, 0], asked.margin[query]))


@part
def farthest(items: Any, asked: Any, dims: int, query: int, key: Any) -> Any:
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


@part
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


@part
def hamming_tile(
    items: Any, asked: Any, heaps: Any, limits: Any, base: int, words: Any, at: int, num_words: int, dims: int,
    start: int, stop: int, valid: Any,
) -> None:  # fmt: skip
    """One tile of ``scan_hamming``, whose words (words, 64) begin at byte ``at``."""
    for query in range(start, stop):
        mask = near(words, at, num_words, asked.planes, query * num_words * 8, np.int64(limits[query])) & valid
        if mask and consider_words(items, asked, query, base, mask, words, at, num_words, dims, heaps[query]):
            limits[query] = min(limits[query], farthest(items, asked, dims, query, heaps[query, 0]))


@compiled
def scan_hamming(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any,
    first: int, last: int, step: int, start: int, stop: int,
) -> None:  # fmt: skip
    """The same for one-bit codes on symmetric grids of one scale, by Hamming distance."""
    dims, num_words = layout.widths[0], layout.words[0]
    words, limits = work.words, work.limits
    for query in range(start, stop):
        limits[query] = farthest(items, asked, dims, query, floors[query])
    in_place = dims == 64 and items.planes.shape[2] == 8
    for base in range(first, last, step * LANES):
        count = min(LANES, last - base)
        valid = ~np.uint64(0) >> np.uint64(LANES - count)
        if in_place and count == LANES:
            hamming_tile(items, asked, heaps, limits, base, items.flat, base * 8, num_words, dims, start, stop, valid)
        else:
            load_tile(items, layout, base, count, words)
            hamming_tile(items, asked, heaps, limits, base, words, 0, num_words, dims, start, stop, valid)


@compiled
def hamming_ranges(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any, ranges: Any, first: int, step: int
) -> None:
    """``scan_hamming`` of every ``step``-th query over the item rows of its ``ranges`` (Q, P, 2) alone."""
    for query in range(first, len(ranges), step):
        for start, stop in ranges[query]:
            floors[query] = heaps[query, 0]  # what the ranges before have reached
            scan_hamming(items, layout, asked, heaps, floors, work, start, stop, 1, query, query + 1)


@compiled
def planes_ranges(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any, ranges: Any, first: int, step: int
) -> None:
    """The same with ``scan_planes``."""
    for query in range(first, len(ranges), step):
        for start, stop in ranges[query]:
            floors[query] = heaps[query, 0]
            scan_planes(items, layout, asked, heaps, floors, work, start, stop, 1, query, query + 1)
