"""Planted data: generated implicit feedback of any size with a known structure.

Real data cannot be shipped (licences, size), and uniform random clicks have nothing to learn. This model plants what
click logs are known for: overlapping communities of taste, power-law degrees of users and items, and clicks that
follow popularity alone.

    item i       weight w_i = (rank_i + 1) ^ -1/(item_exponent - 1), ranks a random permutation: no id order
                 belongs to one of C communities, and with probability ``overlap`` half to a second
    user u       degree d_u from a bounded power law of density d ^ -user_exponent and the wanted mean
                 mixes K communities, drawn by their total weight, with Dirichlet(``concentration``) weights
    click        with probability ``noise`` an item by w; else a community from u's mixture, then a member by w
                 repetitions are drawn again, up to six times, until u has d_u *different* items

Drawing communities by total weight makes an item's share of clicks proportional to w_i, so both degree laws come
out as specified, except for the few repetitions. Each user mixes a few communities with real-valued weights, out of
many more communities than an embedding has dimensions, and members differ in popularity. Which of two fitting items
ranks first therefore depends on magnitudes, and a one-bit code loses those.

Users are generated in chunks of 4,096, each from its own random stream. The work is linear in the clicks, memory is
one chunk and the result (4 bytes a click), and a user's clicks depend only on the settings, the seed and the number of
the chunk. We do not use a stochastic block model, because one community per user and flat degrees can be learned with
one bit, nor a fitted generator, because it needs the data that cannot be shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from rectoolkit.data.dataset import Dataset
from rectoolkit.data.interactions import Interactions, pair_keys, unique_keys
from rectoolkit.data.splits import hold_out
from rectoolkit.recipe.schema import Settings

if TYPE_CHECKING:
    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

CHUNK = 4096  # users per stream; part of the definition of the data, because another number gives other data
ROUNDS = 6  # of drawing again for repeated clicks; further rounds add little
Count = Annotated[int, Field(ge=1, le=2**31 - 2)]
Share = Annotated[float, Field(ge=0, lt=1)]
Exponent = Annotated[float, Field(gt=1, le=10)]


class Planted(Settings):
    """The settings of a planted data set: the ``[planted]`` section of its card.

    ``interactions`` is a target for train and test together. About 10 % fewer come out, because heavy users want more
    items than their communities offer.
    """

    users: Count
    items: Count
    interactions: Count
    communities: Count
    communities_per_user: Annotated[int, Field(ge=1, le=64)] = 4
    concentration: Annotated[float, Field(gt=0, le=100)] = 1.0
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.3
    noise: Share = 0.1
    user_exponent: Exponent = 2.5
    item_exponent: Exponent = 2.5
    test_share: Share = 0.2
    seed: Annotated[int, Field(ge=0)] = 2023


@dataclass(frozen=True, eq=False)
class Taste:
    """The items of each community, with their weights. There are C+1 rows; noise draws from the last, all items.

    ``members`` (M,) are item ids and ``cumulative`` (M,) their running weights, row after row;
    row c is ``starts[c]:starts[c + 1]``.
    """

    members: npt.NDArray[np.int32]
    cumulative: Floats
    starts: Int64s

    def mass(self) -> tuple[Floats, Floats]:
        """The beginning and the end of each row's weight in ``cumulative``: two arrays (C+1,)."""
        ends = np.concatenate([np.zeros(1), self.cumulative])[self.starts]
        return ends[:-1], ends[1:]


def generate(planted: Planted, name: str = "planted") -> Dataset:
    """Generate the data set. The same settings give the same interactions, byte for byte."""
    taste = _taste(planted)
    parts: tuple[list[Interactions], list[Interactions]] = ([], [])
    for chunk in range(-(-planted.users // CHUNK)):
        for part, made in zip(parts, _clicks(planted, taste, chunk), strict=True):
            part.append(made)
    train, test = (_join(part, planted) for part in parts)
    return Dataset(name, train, test)


def preferences(planted: Planted, users: npt.NDArray[np.int64]) -> Floats:
    """The true probability that a click of each user is on each item, (len(users), I): the ranking of an oracle."""
    taste = _taste(planted)
    low, high = taste.mass()
    own = np.diff(taste.cumulative, prepend=0.0)
    rows = np.zeros((len(users), planted.items))
    for chunk in np.unique(users // CHUNK):
        communities, weights, _ = _users(planted, taste, _stream(planted, int(chunk)), int(chunk))
        for place in np.flatnonzero(users // CHUNK == chunk):
            of_user = users[place] % CHUNK
            for row, weight in zip(communities[of_user], weights[of_user], strict=True):
                here = slice(taste.starts[row], taste.starts[row + 1])
                rows[place, taste.members[here]] += weight * own[here] / (high[row] - low[row])
    return rows


def _stream(planted: Planted, chunk: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(planted.seed, spawn_key=(1, chunk)))


def _taste(planted: Planted) -> Taste:
    generator = np.random.default_rng(np.random.SeedSequence(planted.seed, spawn_key=(0,)))
    ranks = generator.permutation(planted.items)
    weights = (ranks + 1.0) ** (-1 / (planted.item_exponent - 1))
    items = np.arange(planted.items)
    first = generator.integers(planted.communities, size=planted.items)
    second = generator.integers(planted.communities, size=planted.items)
    shared = (generator.random(planted.items) < planted.overlap) & (second != first)
    communities = np.concatenate([first, second[shared], np.full(planted.items, planted.communities)])
    members = np.concatenate([items, items[shared], items])
    mass = np.concatenate([np.where(shared, weights / 2, weights), weights[shared] / 2, weights])
    order = np.argsort(communities, kind="stable")
    starts = np.searchsorted(communities[order], np.arange(planted.communities + 2))
    return Taste(members[order].astype(np.int32), np.cumsum(mass[order]), starts.astype(np.int64))


def _users(planted: Planted, taste: Taste, generator: np.random.Generator, chunk: int) -> tuple[Int64s, Floats, Int64s]:
    """The chunk's users: communities (n, K+1), their weights (n, K+1) with noise last, and wanted degrees (n,)."""
    count = min(CHUNK, planted.users - chunk * CHUNK)
    shape = (count, planted.communities_per_user)
    high = taste.mass()[1]
    picked = np.searchsorted(high[:-1], generator.random(shape) * high[-2], side="right")
    weights = generator.standard_gamma(planted.concentration, shape) + 1e-300  # never all zero
    weights *= (1 - planted.noise) / weights.sum(axis=1, keepdims=True)
    communities = np.concatenate([picked, np.full((count, 1), planted.communities)], axis=1)
    weights = np.concatenate([weights, np.full((count, 1), planted.noise)], axis=1)
    exact = _degree(planted, generator.random(count))
    degrees = np.minimum(np.floor(exact + generator.random(count)), planted.items)
    return communities, weights, degrees.astype(np.int64)


def _degree(planted: Planted, quantiles: Floats) -> Floats:
    """The degrees at these quantiles of a bounded power law with the mean interactions / users.

    The density is d^-a above a smallest degree, cut at half the items. The smallest degree is found by bisection.
    """
    power = -1 / (planted.user_exponent - 1)
    grid = (np.arange(4096) + 0.5) / 4096
    mean, cap = planted.interactions / planted.users, max(1.0, planted.items / 2)
    low, high = 0.0, cap
    for _ in range(60):
        least = (low + high) / 2
        short = np.minimum(least * (1 - grid) ** power, cap).mean() < mean
        low, high = (least, high) if short else (low, least)
    return np.minimum(low * (1 - quantiles) ** power, cap)


def _clicks(planted: Planted, taste: Taste, chunk: int) -> tuple[Interactions, Interactions]:
    """The chunk's interactions over its own users 0..n-1, as train and test."""
    generator = _stream(planted, chunk)
    communities, weights, wanted = _users(planted, taste, generator, chunk)
    cumulative = np.cumsum(weights, axis=1)
    low, high = taste.mass()
    keys, missing = np.zeros(0, np.int64), wanted
    for _ in range(ROUNDS):
        if missing.sum() <= wanted.sum() // 200:  # not worth another sort
            break
        users = np.repeat(np.arange(len(wanted)), missing)
        place = (cumulative[users, :-1] <= generator.random(len(users))[:, None]).sum(axis=1)
        row = communities[users, place]
        at = low[row] + generator.random(len(users)) * (high[row] - low[row])
        found = np.searchsorted(taste.cumulative, at, side="right")
        found = np.clip(found, taste.starts[row], taste.starts[row + 1] - 1)  # rounding may cross the edge
        keys = unique_keys(np.concatenate([keys, pair_keys(users, taste.members[found])]))
        missing = wanted - np.bincount(keys >> 32, minlength=len(wanted))
    return hold_out(Interactions.from_keys(keys, len(wanted), planted.items), planted.test_share, generator)


def _join(chunks: list[Interactions], planted: Planted) -> Interactions:
    degrees = np.concatenate([chunk.user_degrees for chunk in chunks])
    items = np.concatenate([chunk.items for chunk in chunks])
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(degrees)])
    return Interactions(indptr, items, planted.users, planted.items)
