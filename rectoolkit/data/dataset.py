"""Dataset: train, test and perhaps validation interactions over the same users and items."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rectoolkit.data.ids import Ids
    from rectoolkit.data.interactions import Int64s, Interactions


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train and test interactions over the same U users and I items.

    Parameters
    ----------
    name : str
        The name shown in results.
    train : Interactions
        The interactions to learn from.
    test : Interactions
        The interactions to measure on. They never decide on a model or an epoch.
    validation : Interactions, optional
        Interactions that decide on the best epoch. Without them, a run holds some out of train.
    user_ids, item_ids : Ids, optional
        The source's own ids, (U,) and (I,). None where the ids are the row numbers.
    places : callable, optional
        Returns the position of each train interaction in its file, int64 (N,). None where train was not read
        from a text file.

    Raises
    ------
    DataError
        If the parts differ in their numbers of users or items, or if there are not as many ids as rows.
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
                    f"train {space[0]} and {space[1]}; all parts must have the same users and items"
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
        """The source's ids of ``users`` and ``items``, without those that are the row numbers."""
        named = {"users": self.user_ids, "items": self.item_ids}
        return {side: ids for side, ids in named.items() if ids is not None}

    def parts(self) -> dict[str, Interactions]:
        """Train, test and, if there is one, validation, by name."""
        parts = {"train": self.train, "test": self.test}
        return parts if self.validation is None else {**parts, "validation": self.validation}

    @cached_property
    def digest(self) -> str:
        """The sha256, in hex, of the content of all parts and of the ids. The name does not count."""
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
        """Counts of users, items and interactions, the density of train, and counts of unusual users and items."""
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
