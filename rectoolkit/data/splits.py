"""Splits: a share of every user's items, one of them, or what is latest, held out.

Validation is held out of train (never test.txt), and data that comes as one file is split the same way into
train and test. The share is taken *per user*, so that every user is both trained and judged; a split over all
pairs would leave light users untested, and a split by user would test users that the model has never seen.

A user with d items gives share * d of them, rounded up or down at random in that proportion: rounding to the
nearest would take nothing from every user with fewer than 0.5 / share items and so judge heavy users only. One
item always stays. Which items go is decided by sorting each row by random keys, in blocks of users: memory is a
few dozen bytes for each interaction of one block, the cost is linear in the interactions, and the result does
not depend on the size of the blocks (each draw is the next of one stream).
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
    """``(rest, held)``: a ``share`` (0..1) of every user's items is held out, random ones or the latest by ``times``
    (N,); at least one stays.

    The two parts are disjoint, together they are ``interactions``, and their id space is the same. The same
    generator state gives the same split. Raises DataError for a share outside 0 <= share < 1.
    """
    if not 0 <= share < 1:
        raise DataError(f"the share to hold out must be at least 0 and below 1, got {share}")
    mask = held_share(interactions, share, generator, times)
    return part(interactions, ~mask), part(interactions, mask)


def held_share(
    interactions: Interactions, share: float, generator: np.random.Generator, times: Floats | None = None
) -> Bools:
    """Which interactions a ``share`` of every user's items is, bool (N,): at random, or by ``times`` the latest."""
    degrees = interactions.user_degrees
    wanted = np.floor(share * degrees + generator.random(len(degrees))).astype(np.int64)
    return _held(interactions, np.minimum(wanted, np.maximum(degrees - 1, 0)), generator, times)


def held_one(interactions: Interactions, generator: np.random.Generator, times: Floats | None = None) -> Bools:
    """Which interactions are one of each user who has two or more, bool (N,): at random, or by ``times`` the latest."""
    return _held(interactions, (interactions.user_degrees > 1).astype(np.int64), generator, times)


def held_after(share: float, times: Floats) -> Bools:
    """Which interactions are the latest ``share`` of all, bool (N,): those at a moment or after it.

    Interactions of one moment stay together, so the share is met as nearly as that allows. Raises DataError where
    no moment parts the interactions.
    """
    low, high = float(times.min()), float(times.max())
    if low == high:
        raise DataError(f"all interactions are of one time ({low:g}); no moment parts them")
    wanted = share * len(times)
    while (middle := low + (high - low) / 2) not in (low, high):  # bisection takes no memory, where sorting takes 8 N
        if np.count_nonzero(times >= middle) > wanted:
            low = middle
        else:
            high = middle
    held: Bools = times >= (low if _nearer(times, low, high, wanted) else high)
    return held


def _nearer(times: Floats, low: float, high: float, wanted: float) -> bool:
    """Whether cutting at ``low`` meets the share better than at ``high``, and leaves something to train on."""
    more, fewer = (np.count_nonzero(times >= moment) for moment in (low, high))
    return bool(more < len(times) and (more - wanted < wanted - fewer or not fewer))


def part(whole: Interactions, mask: Bools) -> Interactions:
    """The interactions where ``mask`` bool (N,) is set, over the same id space."""
    degrees, there = np.zeros(whole.num_users, np.int64), whole.user_degrees > 0
    if there.any():
        degrees[there] = np.add.reduceat(mask, whole.indptr[:-1][there], dtype=np.int64)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(degrees)])
    return Interactions(indptr, whole.items[mask], whole.num_users, whole.num_items)


def _held(
    interactions: Interactions, counts: npt.NDArray[np.int64], generator: np.random.Generator, times: Floats | None
) -> Bools:
    """``counts`` (U,) of each user's interactions: random ones, or the latest, those of one time at random."""
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
    """The data set with ``share`` of every user's train items moved into its validation part."""
    train, validation = hold_out(dataset.train, share, generator)
    return replace(dataset, train=train, validation=validation)


def user_blocks(indptr: npt.NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of users ``first, last`` (exclusive) of about ``size`` interactions each, at least one user each."""
    first, users = 0, len(indptr) - 1
    while first < users:
        last = int(np.searchsorted(indptr, indptr[first] + size, side="right")) - 1
        last = min(max(last, first + 1), first + size, users)
        yield first, last
        first = last
