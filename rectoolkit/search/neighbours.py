"""Similar items: the k nearest rows by cosine, over packed codes or float rows, in bounded memory.

The cosine is that of the decoded values. The inner product that ranks items for users would put the longest rows,
mostly popular items, next to everything. Blocks of rows are decoded, scaled to length 1 and multiplied with many
queries at once, so that decoding costs little. Only what reaches a query's k-th best so far is ranked. Ties go to the
lower mixed id, as in ``search.keys``. This module imports neither torch nor dgl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.checks import row_numbers
from rectoolkit.search.codes import PackedTable
from rectoolkit.search.index import Hits, check_count
from rectoolkit.search.keys import ids_of, mix, order_keys, scores_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

BLOCK, AT_ONCE = 1 << 12, 1 << 10  # rows decoded and queries asked at a time: 16 MB of scores


def neighbours(table: PackedTable | Floats, rows: npt.NDArray[np.int64], k: int) -> Hits:
    """Find the k rows of ``table`` nearest to each of its ``rows`` (Q,), without the row itself, best first.

    k is cut to the number of rows, and the last id is then -1. A row of zeros has cosine 0 with all others.
    """
    check_count("k", k)
    num_rows = table.num_rows if isinstance(table, PackedTable) else len(table)
    rows = row_numbers(rows, num_rows, "rows")
    parts = [
        _nearest(table, rows[start : start + AT_ONCE], min(k, num_rows), num_rows)
        for start in range(0, len(rows), AT_ONCE)
    ]
    best = np.concatenate(parts)
    return Hits(ids_of(best), scores_of(best))


def _nearest(table: PackedTable | Floats, rows: npt.NDArray[np.int64], k: int, num_rows: int) -> npt.NDArray[np.uint64]:
    """The keys (Q, k) of the nearest rows, best first. 0 stands for none."""
    queries = _units(table, rows)
    best = np.zeros((len(rows), k), np.uint64)
    floor = scores_of(best[:, :1])  # each query's k-th best score so far
    for start in range(0, num_rows, BLOCK):
        ids = np.arange(start, min(start + BLOCK, num_rows))
        product = queries @ _units(table, ids).T
        own = np.flatnonzero((rows >= start) & (rows < start + len(ids)))
        product[own, rows[own] - start] = -np.inf
        if not start and k < len(ids):
            floor = np.partition(product, len(ids) - k, axis=1)[:, len(ids) - k, None]
        near = product >= floor
        near[own, rows[own] - start] = False
        query, column = np.divmod(np.flatnonzero(near), len(ids))
        found = order_keys(product[query, column].astype(np.float64), mix(ids)[column])
        counts = np.bincount(query, minlength=len(rows))
        places = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        both = np.zeros((len(rows), k + int(counts.max())), np.uint64)
        both[:, :k] = best
        both[query, k + places] = found
        best = np.partition(both, both.shape[1] - k, axis=1)[:, both.shape[1] - k :]
        floor = scores_of(best.min(axis=1, keepdims=True))
    return np.sort(best, axis=1)[:, ::-1]


def _units(table: PackedTable | Floats, rows: npt.NDArray[np.int64]) -> Floats:
    """The values of these rows, scaled to length 1."""
    values = table.take(rows).unpack().decode() if isinstance(table, PackedTable) else np.asarray(table[rows])
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-30), np.float32)
