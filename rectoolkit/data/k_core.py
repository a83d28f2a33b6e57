"""k-core: the largest part of the data in which every user and every item has at least k interactions.

Dropping a user takes interactions away from items, and the other way round, so both are counted again until nothing
changes. The result does not depend on the order. A round is two counts over the pairs; k = 10 on a click log takes ten
to thirty rounds. Memory: one byte per pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.data.splits import user_blocks
from rectoolkit.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]

BLOCK = 8 << 20  # pairs counted at a time


@dataclass(frozen=True)
class Core:
    """Which ``users`` (U,), ``items`` (I,) and ``pairs`` (N,) belong to the core."""

    users: Bools
    items: Bools
    pairs: Bools


def k_core(indptr: npt.NDArray[np.int64], items: npt.NDArray[np.int32], num_items: int, k: int) -> Core:
    """The k-core of rows by user. Raises DataError, with the largest possible k, if nothing is left."""
    core = _core(indptr, items, num_items, k)
    if not core.pairs.any():
        low, high = 1, k
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _core(indptr, items, num_items, middle).pairs.any() else (low, middle)
        raise DataError(f"the {k}-core of these interactions is empty; the largest possible k is {low}")
    return core


def _core(indptr: npt.NDArray[np.int64], items: npt.NDArray[np.int32], num_items: int, k: int) -> Core:
    num_users = len(indptr) - 1
    keep_users, keep_items = np.ones(num_users, np.bool_), np.ones(num_items, np.bool_)
    pairs = np.ones(len(items), np.bool_)
    degrees = np.diff(indptr)
    while True:
        user_degrees, item_degrees = np.zeros(num_users, np.int64), np.zeros(num_items, np.int64)
        for first, last in user_blocks(indptr, BLOCK):
            start, end = indptr[first], indptr[last]
            kept = keep_items[items[start:end]] & np.repeat(keep_users[first:last], degrees[first:last])
            pairs[start:end] = kept
            sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
            user_degrees[first:last] = sums[indptr[first + 1 : last + 1] - start] - sums[indptr[first:last] - start]
            item_degrees += np.bincount(items[start:end][kept], minlength=num_items)
        still_users, still_items = keep_users & (user_degrees >= k), keep_items & (item_degrees >= k)
        if still_users.sum() == keep_users.sum() and still_items.sum() == keep_items.sum():
            return Core(keep_users, keep_items, pairs)
        keep_users, keep_items = still_users, still_items
