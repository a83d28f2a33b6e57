"""The adjacency-list text of the LightGCN line of work: ``user item item ...``, one user a line.

Ids are integers from 0, separated by spaces or tabs. A user may stand without items (who then has none in
this part) or on several lines; a pair may stand only once in a file. Blank lines are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.data.text import Lines, PairFile, read_pairs

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]

SHAPE = "`user item item ...`: integer ids from 0, separated by spaces"


def read(path: Path) -> PairFile:
    """The pairs of an adjacency-list file. Raises DataError naming the file, the line and what would be right."""
    return read_pairs(path, SHAPE, _pairs)


def _pairs(lines: Lines) -> tuple[Int64s, Int64s, Int64s, int]:
    written = np.flatnonzero(lines.counts)
    counts = lines.counts[written]
    heads = np.cumsum(counts) - counts
    users = lines.values[heads]
    is_item = np.ones(len(lines.values), np.bool_)
    is_item[heads] = False
    return (
        np.repeat(users, counts - 1),
        lines.values[is_item],
        np.repeat(written, counts - 1),
        int(users.max(initial=-1)),
    )
