"""The compiled loops over the items: estimate the scores of 64 at once, score exactly those that may be in the top k.

An estimate is a float32 upper bound of the score. A scan computes it for 64 items at once and gets a 64-bit mask of the
items whose estimate reaches the query's threshold. The error is bounded beforehand (``Asked.margin``), so nothing that
belongs in the answer is dropped. The items that pass, about k ln(N / k) of N, are scored exactly by the formula of
``codes.dot`` and kept in a heap of the k best keys, whose smallest entry raises the threshold.

``compiled_search.choose`` picks the scan:

- ``scan_hamming``: 1-bit codes on symmetric grids. XOR, popcount and compare, all in integers.
- ``scan_tables``: 1 and 2 bits, one scale and offset. Six bits at a time are looked up (``lookup``, AVX512-VBMI).
- ``scan_rows`` for one query or two, ``scan_small`` for more: 2 to 8 bits, one scale and offset, 64 dims. Codes by bit
  matrices (``matrices``, GFNI), byte products compared as integers.
- ``scan_planes``: any width, few queries. AND and popcount over pairs of bit-planes; nothing is unpacked.
- ``scan_bytes``: any width, many queries. A tile is unpacked once, then multiplied by 8-bit dot-product instructions
  (vpdpbusd with AVX-512 or AVX-VNNI, vpmaddubsw with AVX2, plain multiplications elsewhere).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rectoolkit.search.kernels.compiling import LANES, compiled, part
from rectoolkit.search.kernels.exact import (
    consider,
    consider_rows,
    consider_words,
    farthest,
    least_sum,
    lower_limit,
    threshold,
)
from rectoolkit.search.kernels.lookup import index_tile, lookup_tile
from rectoolkit.search.kernels.matrices import MATRIX_QUERIES, near_rows, near_tile, unpack_rows
from rectoolkit.search.kernels.products import QUERY_TILE, dot_tile, near, planes_tile, reached
from rectoolkit.search.kernels.queries import TABLE_QUERIES, TABLE_TILES
from rectoolkit.search.kernels.tiles import interleave, load_side, load_tile, padded_tile, unpack_lane


@compiled
def scan_bytes(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any,
    first: int, last: int, step: int, start: int, stop: int,
) -> None:  # fmt: skip
    """Rank items ``first`` to ``last``, every ``step``-th tile, for queries ``start`` to ``stop``, by byte products.

    Items that cannot beat a query's key in ``floors`` need not be found.
    """
    bits, width, segments = items.planes.shape[1], asked.values.shape[1], len(layout.widths)
    words, side, rows, tile, out, limits, totals = work[:7]
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
    """``scan_bytes`` by AND and popcount over pairs of bit-planes."""
    bits, width, segments = items.planes.shape[1], asked.values.shape[1], len(layout.widths)
    words, side, rows, _, out, limits, totals = work[:7]
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


@compiled
def scan_tables(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any,
    first: int, last: int, step: int, start: int, stop: int,
) -> None:  # fmt: skip
    """``scan_bytes`` by table lookup, for rows of one segment of whole words and one scale and offset.

    Sixteen tiles at a time are ranked for sixteen queries at a time.
    """
    bits, num_words = items.planes.shape[1], layout.words[0]
    row, lookups = bits * num_words * 8, asked.tables.shape[1]
    least = work.least
    for query in range(start, stop):
        least[query] = least_sum(asked, num_words, query, floors[query])
    tiles = (last - first + step * LANES - 1) // (step * LANES)
    for block in range(0, tiles, TABLE_TILES):
        end = min(block + TABLE_TILES, tiles)
        for n in range(block, end):
            base, at = first + n * step * LANES, (n - block) * lookups * LANES
            if base + LANES <= last:
                index_tile(items.flat, base * row, bits, num_words, work.indices, at)
            else:  # past its end the rows may have no memory
                padded_tile(items, base, last - base, work.words)
                index_tile(work.words, 0, bits, num_words, work.indices, at)
        for query in range(start, stop, TABLE_QUERIES):
            num = min(TABLE_QUERIES, stop - query)
            for n in range(block, end):
                found = lookup_tile(
                    work.indices, (n - block) * lookups * LANES, bits, num_words, asked.tables, query * lookups * LANES,
                    least, query, num, work.hits, 0, work.masks, 0,
                )  # fmt: skip
                for hit in range(found):
                    q, base = query + work.hits[hit], first + n * step * LANES
                    mask = work.masks[hit] & (~np.uint64(0) >> np.uint64(LANES - min(LANES, last - base)))
                    if consider_rows(items, layout, asked, q, base, mask, work.rows, work.totals, heaps[q]):
                        least[q] = max(least[q], least_sum(asked, num_words, q, heaps[q, 0]))


@compiled
def scan_rows(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any,
    first: int, last: int, step: int, start: int, stop: int,
) -> None:  # fmt: skip
    """``scan_bytes`` for rows of one word and one scale and offset, by products of codes as they are unpacked."""
    bits, lower = items.planes.shape[1], work.lower
    for query in range(start, stop):
        lower[query] = lower_limit(asked, query, floors[query])
    for base in range(first, last, step * LANES):
        count = min(LANES, last - base)
        whole = base + LANES + 8 <= len(items.planes)
        if not whole:
            padded_tile(items, base, count, work.words)
        for query in range(start, stop):
            if whole:
                mask = near_rows(items.flat, base * bits * 8, bits, asked.small, query * LANES, lower[query])
            else:
                mask = near_rows(work.words, 0, bits, asked.small, query * LANES, lower[query])
            mask &= ~np.uint64(0) >> np.uint64(LANES - count)
            if mask and consider_rows(items, layout, asked, query, base, mask, work.rows, work.totals, heaps[query]):
                lower[query] = max(lower[query], lower_limit(asked, query, heaps[query, 0]))


@compiled
def scan_small(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any,
    first: int, last: int, step: int, start: int, stop: int,
) -> None:  # fmt: skip
    """``scan_rows`` for many queries: the codes of a tile are written out and multiplied with four at a time."""
    bits, lower = items.planes.shape[1], work.lower
    for query in range(start, stop):
        lower[query] = lower_limit(asked, query, floors[query])
    for base in range(first, last, step * LANES):
        count = min(LANES, last - base)
        if base + LANES + 8 <= len(items.planes):
            unpack_rows(items.flat, base * bits * 8, bits, work.rows, 0)
        else:
            padded_tile(items, base, count, work.words)
            unpack_rows(work.words, 0, bits, work.rows, 0)
        for lane in range(0, LANES, 16):
            interleave(work.rows, lane * LANES, LANES, work.tile, lane * 4)
        valid = ~np.uint64(0) >> np.uint64(LANES - count)
        for query in range(start, stop, MATRIX_QUERIES):
            near_tile(work.tile, 0, 16, asked.small, query * LANES, LANES, lower, query * 4, work.masks, 0)
            for q in range(query, min(query + MATRIX_QUERIES, stop)):
                mask = work.masks[q - query] & valid
                if mask and consider_rows(items, layout, asked, q, base, mask, work.rows, work.totals, heaps[q]):
                    lower[q] = max(lower[q], lower_limit(asked, q, heaps[q, 0]))


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
    """``scan_bytes`` for one-bit codes on symmetric grids of one scale, by Hamming distance."""
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
    """``scan_hamming`` of every ``step``-th query over only the item rows of its ``ranges`` (Q, P, 2)."""
    for query in range(first, len(ranges), step):
        for start, stop in ranges[query]:
            floors[query] = heaps[query, 0]  # what the ranges before have reached
            scan_hamming(items, layout, asked, heaps, floors, work, start, stop, 1, query, query + 1)


@compiled
def planes_ranges(
    items: Any, layout: Any, asked: Any, heaps: Any, floors: Any, work: Any, ranges: Any, first: int, step: int
) -> None:
    """``hamming_ranges`` with ``scan_planes``."""
    for query in range(first, len(ranges), step):
        for start, stop in ranges[query]:
            floors[query] = heaps[query, 0]
            scan_planes(items, layout, asked, heaps, floors, work, start, stop, 1, query, query + 1)
