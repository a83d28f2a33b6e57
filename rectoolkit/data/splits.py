"""Splits: hold out a share of each user's items, one item of each user, or the latest interactions.

Validation is held out of train, never out of test. A data set that has one file is split into train and test in the
same way. The share is taken *per user*, so that every user is both trained and tested. A split over all pairs would
leave light users untested, and a split by user would test users that the model has never seen.

Of a user with d items, share * d are held out, rounded up or down at random in proportion. Rounding to the nearest
integer would take nothing from users with fewer than 0.5 / share items, and so would test heavy users only. At least
one item stays. The items are chosen by sorting each row by random keys, in blocks of users. Memory is a few dozen
bytes per interaction of a block, and the result does not depend on the block size, because all draws come from one
stream.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.data.dataset import Dataset
from rectoolkit.data.interactions import Interactions
from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

BLOCK = 1 << 20  # interactions sorted at a time: 40 MB of keys and orders


def hold_out(
    interactions: Interactions, share: float, generator: np.random.Generator, times: Floats | None = None
) -> tuple[Interactions, Interactions]:
    """Hold out a share of each user's items; at least one item stays.

    Parameters
    ----------
    interactions : Interactions
    share : float
        The share to hold out, 0 <= share < 1.
    generator : numpy.random.Generator
        The same state gives the same split.
    times : ndarray of float64, shape (N,), optional
        With times, the latest items are held out, otherwise random ones.

    Returns
    -------
    rest, held : Interactions
        Two disjoint parts with the same numbers of users and items.

    Raises
    ------
    DataError
        If the share is out of range.
    """
    if not 0 <= share < 1:
        raise DataError(f"the share to hold out must be at least 0 and below 1, got {share}")
    mask = held_share(interactions, share, generator, times)
    return part(interactions, ~mask), part(interactions, mask)


def held_share(
    interactions: Interactions, share: float, generator: np.random.Generator, times: Floats | None = None
) -> Bools:
    """A mask, bool (N,), of a share of each user's items: random ones, or the latest by ``times``."""
    degrees = interactions.user_degrees
    wanted = np.floor(share * degrees + generator.random(len(degrees))).astype(np.int64)
    return _held(interactions, np.minimum(wanted, np.maximum(degrees - 1, 0)), generator, times)


def held_one(interactions: Interactions, generator: np.random.Generator, times: Floats | None = None) -> Bools:
    """A mask, bool (N,), of one item of each user with at least two: a random one, or the latest by ``times``."""
    return _held(interactions, (interactions.user_degrees > 1).astype(np.int64), generator, times)


def held_after(share: float, times: Floats) -> Bools:
    """A mask, bool (N,), of the latest share of all interactions: those at some moment or after it.

    Interactions of one moment stay together, so the share is met as closely as that allows. Raises DataError if all
    interactions are of one moment.
    """
    low, high = float(times.min()), float(times.max())
    if low == high:
        raise DataError(f"all interactions have the same time ({low:g}), so they cannot be split by time")
    wanted = share * len(times)
    while (middle := low + (high - low) / 2) not in (low, high):  # bisection takes no memory; sorting takes 8 N
        if np.count_nonzero(times >= middle) > wanted:
            low = middle
        else:
            high = middle
    held: Bools = times >= (low if _nearer(times, low, high, wanted) else high)
    return held


def _nearer(times: Floats, low: float, high: float, wanted: float) -> bool:
    """Whether a cut at ``low`` is closer to the share than one at ``high``, and leaves something to train on."""
    more, fewer = (np.count_nonzero(times >= moment) for moment in (low, high))
    return bool(more < len(times) and (more - wanted < wanted - fewer or not fewer))


def part(whole: Interactions, mask: Bools) -> Interactions:
    """The interactions at which ``mask``, bool (N,), is set, with the same numbers of users and items."""
    degrees, there = np.zeros(whole.num_users, np.int64), whole.user_degrees > 0
    if there.any():
        degrees[there] = np.add.reduceat(mask, whole.indptr[:-1][there], dtype=np.int64)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(degrees)])
    return Interactions(indptr, whole.items[mask], whole.num_users, whole.num_items)


def _held(
    interactions: Interactions, counts: npt.NDArray[np.int64], generator: np.random.Generator, times: Floats | None
) -> Bools:
    """A mask of ``counts`` (U,) items of each user: random ones, or the latest, with ties broken at random."""
    degrees = interactions.user_degrees
    held = np.zeros(interactions.num_interactions, np.bool_)
    for first, last in user_blocks(interactions.indptr, BLOCK):
        start, end = interactions.indptr[first], interactions.indptr[last]
        users, random = np.repeat(np.arange(last - first), degrees[first:last]), generator.random(int(end - start))
        if times is None:
            order = np.argsort(users + random, kind="stable")
        else:
            order = np.lexsort((random, -times[start:end], users))
        rank = np.arange(start, end) - np.repeat(interactions.indptr[first:last], degrees[first:last])
        held[start + order[rank < np.repeat(counts[first:last], degrees[first:last])]] = True
    return held


def with_validation(dataset: Dataset, share: float, generator: np.random.Generator) -> Dataset:
    """The data set with a share of each user's train items moved to its validation part."""
    train, validation = hold_out(dataset.train, share, generator)
    return replace(dataset, train=train, validation=validation)


def user_blocks(indptr: npt.NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of users ``first, last`` (exclusive) with about ``size`` interactions, and at least one user, each."""
    first, users = 0, len(indptr) - 1
    while first < users:
        last = int(np.searchsorted(indptr, indptr[first] + size, side="right")) - 1
        last = min(max(last, first + 1), first + size, users)
        yield first, last
        first = last
