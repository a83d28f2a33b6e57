"""The range of the sums of codes in a catalogue, which bounds what a product leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np

from rectoolkit.search.kernels.compiling import compiled
from rectoolkit.search.kernels.vectors import count_bits, word_at


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
