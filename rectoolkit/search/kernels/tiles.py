"""Tiles of 64 items taken from the packed rows: their planes as words, their sums and scales, their codes as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from rectoolkit.search.kernels.compiling import part
from rectoolkit.search.kernels.vectors import LANES, bits_float, split_planes, sum_planes, unpack_word, word_at


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
