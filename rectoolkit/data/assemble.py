"""From the pairs of files to a Dataset: one id space, no pair in two parts.

A test pair that stands in train too would be masked from the ranking and lost, or, unmasked, found for nothing;
either makes figures wrong in silence, so it is refused, with both lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from rectoolkit.data.interactions import Dataset, Interactions, check_dense
from rectoolkit.data.splits import hold_out
from rectoolkit.errors import DataError
from rectoolkit.recipe.registry import Settings

if TYPE_CHECKING:
    from rectoolkit.data.text import PairFile


class Offsets(Settings):
    """The ids with which a file's users and items begin: taken off, so that both begin at 0."""

    first_user: Annotated[int, Field(ge=0)] = 0
    first_item: Annotated[int, Field(ge=0)] = 0


class Split(Settings):
    """How a set that comes as one file is split: the share of every user's items for test, drawn from ``seed``."""

    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0)] = 2023


NO_OFFSETS = Offsets()


def assemble(
    name: str, files: dict[str, PairFile], offsets: Offsets = NO_OFFSETS, num_users: int = 0, num_items: int = 0
) -> Dataset:
    """The data set of the files ``train``, ``test`` and perhaps ``validation``.

    Its id space is the largest id of any part plus one, or the counts given, whichever is more. Raises DataError
    where parts overlap, where ids begin below ``offsets`` or where the id space is almost empty.
    """
    num_users = max([num_users, *(file.num_users - offsets.first_user for file in files.values())])
    num_items = max([num_items, *(file.num_items - offsets.first_item for file in files.values())])
    check_dense(num_users, num_items, sum(len(file.keys) for file in files.values()), name)
    parts = {
        part: Interactions.from_keys(_shifted(file, offsets), num_users, num_items) for part, file in files.items()
    }
    order = list(parts)
    for index, part in enumerate(order):
        for other in order[:index]:
            _check_apart(files[other], parts[other], files[part], parts[part], offsets)
    return Dataset(name, parts["train"], parts["test"], parts.get("validation"), places=files["train"].places)


def split_one(
    name: str, file: PairFile, split: Split, offsets: Offsets = NO_OFFSETS, num_users: int = 0, num_items: int = 0
) -> Dataset:
    """The data set of one file, a share of every user's items held out as test."""
    num_users = max(num_users, file.num_users - offsets.first_user)
    num_items = max(num_items, file.num_items - offsets.first_item)
    check_dense(num_users, num_items, len(file.keys), str(file.path))
    whole = Interactions.from_keys(_shifted(file, offsets), num_users, num_items)
    return Dataset(name, *hold_out(whole, split.test_share, np.random.default_rng(split.seed)))


def _shifted(file: PairFile, offsets: Offsets) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The file's keys with the offsets taken off; still ascending, for the shift is the same for all."""
    if offsets == NO_OFFSETS:
        return file.keys
    users, items = file.keys >> 32, file.keys & 0xFFFFFFFF
    low = (users < offsets.first_user) | (items < offsets.first_item)
    if low.any():
        user, item = int(users[low.argmax()]), int(items[low.argmax()])
        raise DataError(
            f"{file.path}, line {file.lines_of(user, item)[0]}: user {user}, item {item}, but the card says that "
            f"users begin at {offsets.first_user} and items at {offsets.first_item}"
        )
    shifted: np.ndarray[tuple[int], np.dtype[np.int64]] = file.keys - ((offsets.first_user << 32) + offsets.first_item)
    return shifted


def _check_apart(
    first: PairFile, first_part: Interactions, second: PairFile, second_part: Interactions, offsets: Offsets
) -> None:
    users, items = second_part.pairs()
    both = np.flatnonzero(first_part.contains(users, items))
    if not len(both):
        return
    user, item = int(users[both[0]]) + offsets.first_user, int(items[both[0]]) + offsets.first_item
    where = ", ".join(f"{file.path}, line {file.lines_of(user, item)[0]}" for file in (first, second))
    raise DataError(
        f"{second.path}: {len(both)} of its {len(users)} pairs stand in {first.path} too, the first: user {user}, "
        f"item {item} ({where}); no pair may stand in two parts: remove them from one"
    )
