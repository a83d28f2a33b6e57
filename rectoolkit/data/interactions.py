"""Interactions: the set of (user, item) pairs, stored as one sorted row of item ids per user.

The rest of the toolkit asks three things of interactions: the items of a user (masking, evaluation), all pairs in one
sweep (sampling, building a graph), and whether a pair is present (rejecting a seen item drawn as a negative).
Compressed sparse rows answer all three:

    indptr (U+1,) int64    where each row starts: user u has items[indptr[u]:indptr[u+1]]
    items  (N,)   int32    item ids, ascending within a row, without duplicates

This takes 4 bytes an interaction and 8 a user, so 0.4 GB for a hundred million interactions. A pandas frame of the
same pairs takes four times as much and a Python dict of sets forty times. A scipy matrix would add N ones without
information. ``contains`` bisects the rows of all queries in step, so it needs no second copy of the pairs.

Building from pairs is one sort of 64-bit keys ``user << 32 | item``. Pairs that are already sorted are not sorted
again. On disk, a ``.bin`` file holds the two arrays at 64-byte boundaries after a JSON header; it is memory-mapped,
so that any number of interactions opens at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.checks import row_numbers
from rectoolkit.errors import DataError, FormatError
from rectoolkit.files import open_arrays, save_arrays

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Int32s = npt.NDArray[np.int32]
    Int64s = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

MAX_ID = 2**31 - 2  # ids are int32, and the count of ids (the largest plus one) must be one too
COUNTED = 1 << 24  # items at a time: bincount makes int64 of them first, 8 bytes each
FREE_IDS, SPARSEST = 1_000_000, 100  # an id space of a million is 8 MB of indptr; real sets have fewer ids than pairs


@dataclass(frozen=True, eq=False)
class Interactions:
    """A set of N (user, item) pairs of U users and I items, stored by user.

    Build one with ``from_pairs``, or from a pandas frame with ``rectoolkit.data.from_frame``. The constructor takes
    arrays that are already in the stored form.

    Parameters
    ----------
    indptr : ndarray of int64, shape (U + 1,)
        User u has the items ``items[indptr[u]:indptr[u + 1]]``.
    items : ndarray of int32, shape (N,)
        Item ids, ascending and unique within each user.
    num_users, num_items : int
        U and I. Users and items without interactions count.

    Raises
    ------
    ValueError
        If shapes or types do not fit.
    """

    indptr: Int64s = field(repr=False)
    items: Int32s = field(repr=False)
    num_users: int
    num_items: int

    def __post_init__(self) -> None:
        indptr, items = self.indptr, self.items
        if indptr.dtype != np.int64 or indptr.shape != (self.num_users + 1,):
            raise ValueError(f"indptr must be int64 ({self.num_users + 1},), got {indptr.dtype} {indptr.shape}")
        if items.dtype != np.int32 or items.ndim != 1:
            raise ValueError(f"items must be int32 (N,), got {items.dtype} {items.shape}")
        if indptr[0] != 0 or indptr[-1] != len(items):
            raise ValueError(f"indptr must run from 0 to {len(items)}, got {indptr[0]} to {indptr[-1]}")

    @classmethod
    def from_pairs(
        cls,
        users: npt.ArrayLike,
        items: npt.ArrayLike,
        num_users: int | None = None,
        num_items: int | None = None,
    ) -> Interactions:
        """Build interactions from pairs in any order. A repeated pair counts once.

        Parameters
        ----------
        users, items : array_like of int, shape (N,)
            The ids of each pair, from 0.
        num_users, num_items : int, optional
            U and I. By default the largest id plus one.

        Returns
        -------
        Interactions

        Raises
        ------
        DataError
            If ids are not integers, are negative, or exceed the counts or ``MAX_ID``, or if almost all ids up to the
            largest are unused (``check_dense``).
        """
        user_ids, item_ids = _ids(users, "user", num_users), _ids(items, "item", num_items)
        if len(user_ids) != len(item_ids):
            raise DataError(f"{len(user_ids)} user ids against {len(item_ids)} item ids; a pair needs one of each")
        if num_users is None:
            num_users = int(user_ids.max(initial=-1)) + 1
        if num_items is None:
            num_items = int(item_ids.max(initial=-1)) + 1
        check_dense(num_users, num_items, len(user_ids))
        return cls.from_keys(unique_keys(pair_keys(user_ids, item_ids)), num_users, num_items)

    @classmethod
    def from_keys(cls, keys: Int64s, num_users: int, num_items: int) -> Interactions:
        """Build interactions from unique, ascending keys (``unique_keys``) whose ids are in range."""
        degrees = np.bincount((keys >> 32).astype(np.int32), minlength=num_users)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(degrees, dtype=np.int64)])
        return cls(indptr, (keys & 0xFFFFFFFF).astype(np.int32), num_users, num_items)

    @classmethod
    def load(cls, path: Path) -> Interactions:
        """Open a file written by ``save``, memory-mapped. Raises FormatError if it is missing, damaged or another."""
        file = open_arrays(path, "interactions")
        indptr, items = file.array("indptr", "<i8", 1), file.array("items", "<i4", 1)
        try:
            return cls(indptr, items, file.count("num_users"), file.count("num_items"))
        except (ValueError, IndexError) as error:
            raise FormatError(f"{path}: does not describe interactions: {error}") from None

    def save(self, path: Path) -> None:
        """Write the interactions to one file, atomically."""
        facts = {"num_users": self.num_users, "num_items": self.num_items}
        save_arrays(path, "interactions", {"indptr": self.indptr, "items": self.items}, facts)

    @property
    def num_interactions(self) -> int:
        return len(self.items)

    @property
    def users(self) -> Int32s:
        """The user of every interaction, int32 (N,), ascending. Computed at each access."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.user_degrees)

    @property
    def user_degrees(self) -> Int64s:
        """The number of items of each user, int64 (U,)."""
        return np.diff(self.indptr)

    @cached_property
    def item_degrees(self) -> Int64s:
        """The number of users of each item (its popularity), int64 (I,)."""
        degrees = np.zeros(self.num_items, np.int64)
        for start in range(0, len(self.items), COUNTED):
            degrees += np.bincount(self.items[start : start + COUNTED], minlength=self.num_items)
        return degrees

    def pairs(self) -> tuple[Int32s, Int32s]:
        """All pairs, sorted by user, then by item: users int32 (N,) and items int32 (N,)."""
        return self.users, self.items

    def keys(self) -> Int64s:
        """All pairs as ascending int64 keys ``user << 32 | item`` (N,)."""
        return pair_keys(self.users, self.items)

    def row(self, user: int) -> Int32s:
        """A view of one user's items, int32 (degree,), ascending. Raises IndexError for a user out of range."""
        if not 0 <= user < self.num_users:
            raise IndexError(f"user {user}: the users are 0 to {self.num_users - 1}")
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def contains(self, users: npt.ArrayLike, items: npt.ArrayLike) -> Bools:
        """Whether each pair is present.

        The rows of all queries are bisected in step. That takes log2(largest degree) rounds of one gather each.

        Parameters
        ----------
        users, items : array_like of int
            Ids, broadcast against each other. An item id out of range is not present.

        Returns
        -------
        ndarray of bool
            Of the broadcast shape.

        Raises
        ------
        UserError
            If a user id is out of range.
        """
        known = row_numbers(users, self.num_users, "users", "user", dims=None)
        users, items = np.broadcast_arrays(known, np.asarray(items))
        if not len(self.items) or not users.size:
            return np.zeros(users.shape, np.bool_)
        low = self.indptr[users]
        length = self.indptr[users + np.int64(1)] - low
        there = length > 0
        low = np.where(there, low, 0)
        for _ in range(int(length.max()).bit_length()):
            half = length >> 1
            low += half * (self.items[low + half] <= items)
            length -= half
        found: Bools = there & (self.items[low] == items)
        return found


def pair_keys(users: npt.NDArray[Any], items: npt.NDArray[Any]) -> Int64s:
    """One int64 key ``user << 32 | item`` per pair. Keys sort by user, then by item."""
    keys = users.astype(np.int64)
    keys <<= 32
    keys |= items.astype(np.int64, copy=False)
    return keys


def unique_keys(keys: Int64s) -> Int64s:
    """The keys, ascending and unique. ``keys`` is sorted in place unless it is sorted already.

    ``numpy.unique`` hashes integers before it sorts them and takes four times as long.
    """
    if (keys[1:] < keys[:-1]).any():
        keys.sort()
    repeated = keys[1:] == keys[:-1]
    return np.delete(keys, np.flatnonzero(repeated)) if repeated.any() else keys


def check_dense(num_users: int, num_items: int, num_interactions: int, source: str = "") -> None:
    """Raise DataError if almost all ids up to the largest are unused.

    Every array by user or item, and every embedding table, has a row for each id up to the largest. Raw ids such as
    1,700,000,042 would allocate gigabytes for a handful of rows. Up to a million ids always pass.
    """
    largest = max(num_users, num_items)
    if largest > max(FREE_IDS, SPARSEST * num_interactions):
        kind = "user" if num_users == largest else "item"
        raise DataError(
            f"{source}{': ' if source else ''}{kind} ids run up to {largest - 1} for {num_interactions} interactions; "
            "ids must count from 0 without large gaps: import the data (rectool data import), which numbers the ids "
            "and keeps the original ones"
        )


def _ids(values: npt.ArrayLike, kind: str, count: int | None) -> npt.NDArray[Any]:
    """``values`` as an integer array (N,) of ids from 0 to count-1."""
    ids = np.asarray(values)
    if ids.size == 0:
        return np.zeros(0, np.int32)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(f"{kind} ids must be integers in one dimension, got {ids.dtype} {ids.shape}")
    limit = MAX_ID if count is None else count - 1
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > limit:
        raise DataError(f"{kind} id {low if low < 0 else high}: {kind} ids run from 0 to {limit}")
    return ids
