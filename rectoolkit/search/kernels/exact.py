"""Exact scores of the items that pass an estimate, by the formula of ``codes.dot``, and the heap of the best keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from rectoolkit.search.kernels.compiling import LANES, part
from rectoolkit.search.kernels.products import dot_bytes
from rectoolkit.search.kernels.tiles import (
    bits_float,
    count_bits,
    float_bits,
    grid_of,
    lowest_bit,
    unpack_lane,
    unpack_word,
    word_at,
)


@part
def affine(items: Any, asked: Any, query: int, item: int, segment: int, width: int, product: Any, total: Any) -> Any:
    """One segment's part of a score, by the formula of ``codes.dot`` in its order of operations."""
    su, ou, user = asked.scale[query, segment], asked.offset[query, segment], asked.sums[query, segment]
    scale, offset = grid_of(items, item, segment)
    si, oi = np.float64(scale), np.float64(offset)
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
    """``keys.order_keys`` of one pair."""
    raw = float_bits(np.float32(score) + np.float32(0))
    ordered = raw ^ (np.uint32(0xFFFFFFFF) if raw >> np.uint32(31) else np.uint32(0x80000000))
    h = np.uint32(items.ids[item] if len(items.ids) else item)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    h ^= h >> np.uint32(16)
    return (np.uint64(ordered) << np.uint64(32)) | np.uint64(~h & np.uint32(0xFFFFFFFF))


@part
def rankable(items: Any, asked: Any, query: int, item: int) -> bool:
    """Whether an item is neither banned for all queries nor excluded for this one."""
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
    """Replace the smallest entry, the first, by a larger ``key``. A heap starts full of zeros.

    Up to 256 entries are kept sorted, by one pass without branches, which is faster than a heap.
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
    """The estimate below which no item can beat ``key``: its score less all rounding on the way."""
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
def consider_rows(
    items: Any, layout: Any, asked: Any, query: int, base: int, mask: Any, row: Any, totals: Any, heap: Any
) -> bool:
    """``consider`` for rows of one segment of whole words, unpacked from where they lie into ``row``."""
    changed, bits, num_words = False, items.planes.shape[1], layout.words[0]
    stride = 8 * num_words
    while mask:
        lane = lowest_bit(mask)
        mask &= mask - np.uint64(1)
        item, total = base + lane, np.int32(0)
        for word in range(num_words):
            at = item * bits * stride + 8 * word
            unpack_word(items.flat, at, stride, bits, row, 64 * word)
            for bit in range(bits):
                total += np.int32(count_bits(word_at(items.flat, at + bit * stride)) << np.uint64(bit))
        totals[0, 0] = total
        key = key_of(items, item, exact_score(items, layout, asked, query, item, row, 0, totals, 0))
        if key > heap[0] and rankable(items, asked, query, item):
            push(heap, key)
            changed = True
    return changed


@part
def least_sum(asked: Any, num_words: int, query: int, key: Any) -> Any:
    """The byte that ``lookup_tile`` compares with, below which no item can beat ``key``."""
    score = score_of(key)
    lowest = score - asked.margin[query] - abs(score) * 2.0**-22 - 1e-37
    least = (lowest - asked.line[query, 1]) / asked.line[query, 0] / (2 * num_words)
    if not least > 0:
        return np.uint8(0)
    return np.uint8(min(np.ceil(least - 1e-6), 255.0))


@part
def lower_limit(asked: Any, query: int, key: Any) -> Any:
    """The product with ``asked.small`` below which no item can beat ``key``."""
    score = score_of(key)
    lowest = score - asked.margin[query] - abs(score) * 2.0**-22 - 1e-37
    least = (lowest - asked.line[query, 1]) / asked.line[query, 0]
    return np.int32(np.ceil(min(max(least - 1e-6, -1e9), 1e9)))
