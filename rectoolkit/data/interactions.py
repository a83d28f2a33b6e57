"""Interactions: who used what, as rows of sorted item ids, and a data set made of them.

Implicit feedback is a set of pairs (user, item). Three things are asked of it all the time: the items of a user
(masking, evaluation), all pairs in one sweep (sampling, building a graph), and whether a pair is there (rejecting
a seen item drawn as a negative). Rows of compressed sparse form answer all three:

    indptr (U+1,) int64    where each user's row starts; user u owns items[indptr[u]:indptr[u+1]]
    items  (N,)   int32    item ids, ascending within a row, without duplicates

That is 4 bytes an interaction and 8 a user; a hundred million interactions take 0.4 GB. A pandas frame of the
same pairs takes four times that, a Python dict of sets forty times, and a scipy matrix carries N ones that say
nothing. ``contains`` bisects the rows of all its queries in step, so it needs no second copy of the pairs (a
hash set or a sorted int64 key would cost 8 bytes an interaction or more).

Building from pairs is one sort of 64-bit keys ``user << 32 | item``; pairs that come sorted are not sorted again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from rectoolkit.data.ids import Ids

    Int32s = npt.NDArray[np.int32]
    Int64s = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

MAX_ID = 2**31 - 2  # ids are int32, and the count of ids (the largest plus one) must be one too
COUNTED = 1 << 24  # items at a time: bincount makes int64 of them first, 8 bytes each
FREE_IDS, SPARSEST = 1_000_000, 100  # an id space of a million is 8 MB of indptr; real sets have fewer ids than pairs


@dataclass(frozen=True, eq=False)
class Interactions:
    """The set of pairs (user, item) of U users and I items, N of them, as rows by user.

    ``indptr`` int64 (U+1,), ``items`` int32 (N,) ascending within each row. Use ``from_pairs`` to build one;
    the constructor takes arrays already in this form and raises ValueError where shapes or types do not fit.
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
        """The interactions of pairs in any order; a pair given twice counts once.

        ``users`` and ``items`` are integers (N,), from 0. Without counts the id space ends at the largest id.
        Raises DataError for ids that are no integers, negative, or beyond the counts or ``MAX_ID``, and for an
        id space that is almost empty (``check_dense``).
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
        """The interactions of unique, ascending keys (``unique_keys``), whose ids must be in range."""
        degrees = np.bincount((keys >> 32).astype(np.int32), minlength=num_users)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(degrees, dtype=np.int64)])
        return cls(indptr, (keys & 0xFFFFFFFF).astype(np.int32), num_users, num_items)

    @classmethod
    def from_pandas(
        cls, frame: Any, user: str = "", item: str = "", *, rating: str = "", min_rating: float | None = None
    ) -> tuple[Interactions, Ids, Ids]:
        """The interactions of a frame's rows, and what the frame calls their users and items, a row each.

        ``user``, ``item`` and ``rating`` name columns; left out, they are the ones with a usual name. Ids are
        integers from 0 or strings, and stay what they are (integers beyond 2^63 - 1 become strings). Rows rated below
        ``min_rating`` are left out, repeated pairs merged. Raises DataError for a column that is not there, missing
        values and mixed types. ``data.import_data`` makes a whole data set of a frame: split, saved under a name, and
        used by recipes.
        """
        from rectoolkit.data.importing import read_frames
        from rectoolkit.data.provenance import Imported

        asked = Imported(user=user, item=item, rating=rating, min_rating=min_rating)
        parts, user_ids, item_ids = read_frames(frame, asked)
        return parts["train"], user_ids, item_ids

    @property
    def num_interactions(self) -> int:
        return len(self.items)

    @property
    def users(self) -> Int32s:
        """The user of every interaction, int32 (N,), ascending; made anew at each call."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.user_degrees)

    @property
    def user_degrees(self) -> Int64s:
        """How many items each user has, int64 (U,)."""
        return np.diff(self.indptr)

    @cached_property
    def item_degrees(self) -> Int64s:
        """How many users each item has (its popularity), int64 (I,)."""
        degrees = np.zeros(self.num_items, np.int64)
        for start in range(0, len(self.items), COUNTED):
            degrees += np.bincount(self.items[start : start + COUNTED], minlength=self.num_items)
        return degrees

    def pairs(self) -> tuple[Int32s, Int32s]:
        """All pairs, sorted by user, then item: users int32 (N,), items int32 (N,)."""
        return self.users, self.items

    def keys(self) -> Int64s:
        """All pairs as ascending int64 keys ``user << 32 | item`` (N,)."""
        return pair_keys(self.users, self.items)

    def row(self, user: int) -> Int32s:
        """The items of one user, ascending, int32 (degree,): a view. Raises IndexError beyond the users."""
        if not 0 <= user < self.num_users:
            raise IndexError(f"user {user}: the users are 0 to {self.num_users - 1}")
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def contains(self, users: npt.ArrayLike, items: npt.ArrayLike) -> Bools:
        """Whether each pair is there, bool of the shape that ``users`` and ``items`` broadcast to.

        The rows of all queries are bisected in step: log2 of the largest degree rounds of one gather each.
        User ids must be in range; an item id out of range is simply not there.
        """
        users, items = np.broadcast_arrays(np.asarray(users), np.asarray(items))
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


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train and test interactions over the same U users and I items, and perhaps a validation part.

    ``test`` is never looked at for a choice of model or epoch; ``validation`` is held out of train for that
    (``splits.hold_out``). ``user_ids`` (U,) and ``item_ids`` (I,) give the ids of the source (``data.ids``), where
    they are not the row numbers themselves. ``places`` tells where each train interaction stands in the file that it
    was read from, int64 (N,), where it was read from a text. Raises DataError where the parts' id spaces differ.
    """

    name: str
    train: Interactions
    test: Interactions
    validation: Interactions | None = None
    user_ids: Ids | None = field(default=None, repr=False)
    item_ids: Ids | None = field(default=None, repr=False)
    places: Callable[[], Int64s] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = (self.train.num_users, self.train.num_items)
        for part, interactions in self.parts().items():
            if (interactions.num_users, interactions.num_items) != space:
                raise DataError(
                    f"{self.name}: {part} has {interactions.num_users} users and {interactions.num_items} items, "
                    f"train {space[0]} and {space[1]}; all parts share one id space"
                )
        for kind, ids, count in (("user_ids", self.user_ids, space[0]), ("item_ids", self.item_ids, space[1])):
            if ids is not None and len(ids) != count:
                raise DataError(f"{self.name}: {len(ids)} {kind} for {count} rows")

    @property
    def num_users(self) -> int:
        return self.train.num_users

    @property
    def num_items(self) -> int:
        return self.train.num_items

    def ids(self) -> dict[str, Ids]:
        """What the source calls its ``users`` and ``items``, where those are not the row numbers."""
        named = {"users": self.user_ids, "items": self.item_ids}
        return {side: ids for side, ids in named.items() if ids is not None}

    def parts(self) -> dict[str, Interactions]:
        """The parts there are, by name, train first."""
        parts = {"train": self.train, "test": self.test}
        return parts if self.validation is None else {**parts, "validation": self.validation}

    @cached_property
    def digest(self) -> str:
        """The sha256, in hex, of every part's content and of the ids: equal exactly where all of these are equal."""
        hasher = hashlib.sha256()
        for part, data in self.parts().items():
            hasher.update(f"{part} {data.num_users} {data.num_items} {data.num_interactions}\n".encode())
            for array in (data.indptr.astype("<i8", copy=False), data.items.astype("<i4", copy=False)):
                hasher.update(np.ascontiguousarray(array).data if array.size else b"")
        for kind, ids in (("user_ids", self.user_ids), ("item_ids", self.item_ids)):
            for name, array in ({} if ids is None else ids.arrays()).items():
                hasher.update(f"{kind} {name}\n".encode())
                hasher.update(np.ascontiguousarray(array).data if array.size else b"")
        return hasher.hexdigest()

    def summary(self) -> dict[str, int | float]:
        """What a reader of results needs to know about the data: counts, and the share of cells in train."""
        in_train = self.train.item_degrees > 0
        no_train = self.train.user_degrees == 0
        counts: dict[str, int | float] = {"users": self.num_users, "items": self.num_items}
        counts |= {part: data.num_interactions for part, data in self.parts().items()}
        counts |= {
            "density": self.train.num_interactions / max(1, self.num_users * self.num_items),
            "users without train items": int(no_train.sum()),
            "users without test items": int((self.test.user_degrees == 0).sum()),
            "users with test items only": int((no_train & (self.test.user_degrees > 0)).sum()),
            "items never in train": int((~in_train).sum()),
            "test items never in train": int((~in_train & (self.test.item_degrees > 0)).sum()),
        }
        return counts


def pair_keys(users: npt.NDArray[Any], items: npt.NDArray[Any]) -> Int64s:
    """One int64 ``user << 32 | item`` a pair: ordered as the pairs are, by user, then item."""
    keys = users.astype(np.int64)
    keys <<= 32
    keys |= items.astype(np.int64, copy=False)
    return keys


def unique_keys(keys: Int64s) -> Int64s:
    """The keys ascending and each once. ``keys`` is sorted in place where it is not sorted already.

    Sorting beats ``numpy.unique``, which hashes integers and then sorts: 18 against 80 ns a key at a million.
    """
    if (keys[1:] < keys[:-1]).any():
        keys.sort()
    repeated = keys[1:] == keys[:-1]
    return np.delete(keys, np.flatnonzero(repeated)) if repeated.any() else keys


def check_dense(num_users: int, num_items: int, num_interactions: int, source: str = "") -> None:
    """Raise DataError where the ids leave so many gaps that tables by id would be almost all waste.

    Every array by user or item, and every embedding table, is as long as the id space: raw ids such as
    1,700,000,042 would allocate gigabytes for a handful of rows. Up to a million ids pass in any case.
    """
    largest = max(num_users, num_items)
    if largest > max(FREE_IDS, SPARSEST * num_interactions):
        kind = "user" if num_users == largest else "item"
        raise DataError(
            f"{source}{': ' if source else ''}{kind} ids run up to {largest - 1} for {num_interactions} interactions; "
            "ids must count from 0 without large gaps: import them (rectool data import), which numbers them "
            "and gives the original ids back"
        )


def _ids(values: npt.ArrayLike, kind: str, count: int | None) -> npt.NDArray[Any]:
    """``values`` as an integer array (N,) of ids within 0..count-1."""
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
