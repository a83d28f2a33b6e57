"""Texts with one pair a line: ``user item``, and MovieLens's ``user item rating timestamp``.

``pairs`` is what most click logs export: two integer ids a line, separated by a tab, spaces or a comma. A log
repeats itself, so a pair that stands twice is merged, unlike in an adjacency list, where it is a fault.
``ratings`` takes the first two columns of four (MovieLens-100K's u.data, and ratings.dat of MovieLens-1M, whose
columns are parted by ``::``; commas part them as well); every rating, high or low, counts as one interaction.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.data.text import Lines, PairFile, read_pairs

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]

PAIR = "`user item`: two integer ids, separated by a tab, spaces or a comma"
RATING = "`user item rating timestamp`: four integers, separated by tabs, spaces, commas or ::"


def read(path: Path) -> PairFile:
    """The pairs of a file of ``user item`` lines. Raises DataError naming file, line and what would be right."""
    return read_pairs(path, PAIR, partial(_pairs, columns=2), separators=b",", merge=True)


def read_ratings(path: Path) -> PairFile:
    """The pairs of a file of ``user item rating timestamp`` lines. Raises DataError as ``read`` does."""
    return read_pairs(path, RATING, partial(_pairs, columns=4), separators=b":,", merge=True)


def _pairs(lines: Lines, columns: int) -> tuple[Int64s, Int64s, Int64s, int]:
    wrong = np.flatnonzero((lines.counts != columns) & (lines.counts != 0))
    if len(wrong):
        lines.refuse(int(wrong[0]), f"{lines.counts[wrong[0]]} columns where {columns} are right")
    table = lines.values.reshape(-1, columns)
    return table[:, 0], table[:, 1], np.flatnonzero(lines.counts), int(table[:, 0].max(initial=-1))
