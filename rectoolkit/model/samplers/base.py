"""Base class of the samplers: the train interactions as batches of (user, positive, negatives), shuffled each epoch.

A negative is never an item that its user has in train, and no draw is rejected for it. Give each item an integer number
w_j of tickets (1 for uniform draws), W in all, numbered in the order of item ids. A user with seen items
s_0 < s_1 < ... has W - sum w_s unseen tickets. The unseen ticket of rank r (from 0) is ticket

    r + sum of w_s over the seen s_j with b_j <= r,      b_j = unseen tickets below s_j

because r skips exactly the tickets of the s_j with b_j <= r. The b_j of all users are in one sorted array. So a draw is
exact and takes one binary search in it, O(log N), however many items a user has; and one more among the items if
tickets differ. Users who have every item have no negative and are left out.

Samplers that share K negatives across a batch cannot avoid seen items. They name the ``collisions``, and losses leave
these pairs out. Collisions are found from the users of each negative, which are far fewer than the items of all users
in the batch.

A run supplies ``train`` (Interactions) and ``generator`` (numpy Generator).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rectoolkit.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from rectoolkit.data import Interactions
    from rectoolkit.model.samplers.settings import SamplerSettings

    Ids = npt.NDArray[np.int64]

BLOCK = 1 << 22  # interactions at a time, where whole arrays would be held twice
MOST_TICKETS = 2**52  # of all items; fewer where users * tickets would pass 2**62


@dataclass(frozen=True)
class Batch:
    """The ids of a batch, int64.

    Attributes
    ----------
    users, positives
        (B,) each.
    negatives
        (B, K), or (K,) if the whole batch shares them.
    collisions
        (2, M), with shared negatives: the pairs (row of the batch, column of the negatives) that are in train.
    log_odds
        float32 of the shape of ``negatives``, if items are not drawn uniformly: the log of how many times more often
        than uniformly each item is drawn.
    best_of
        If n > 1, negatives are (B, K n), and of each n adjacent ones only the best scored counts (``Views.hardest``).
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor
    collisions: Tensor | None = None
    log_odds: Tensor | None = None
    best_of: int = 1

    def to(self, device: torch.device) -> Batch:
        """This batch on another device; samplers draw on the CPU."""
        if self.users.device == device:
            return self
        moved: dict[str, Any] = {name: ids.to(device) for name, ids in vars(self).items() if isinstance(ids, Tensor)}
        return replace(self, **moved)


class Unseen:
    """Draws items that a user does not have in train, without rejection: uniformly, or by ``tickets`` (I,), all > 0."""

    def __init__(self, train: Interactions, tickets: Ids | None = None) -> None:
        indptr, items = train.indptr, train.items
        self._before = self._passed = None  # tickets below each item; seen tickets, over all rows
        if tickets is not None:
            self._before = np.concatenate([np.zeros(1, np.int64), np.cumsum(tickets)])
            self._passed = np.zeros(len(items) + 1, np.int64)
            np.cumsum(tickets[items], out=self._passed[1:])
        ends = indptr if self._passed is None else self._passed[indptr]
        total = train.num_items if self._before is None else int(self._before[-1])
        self._base, self.counts = ends[:-1], total - np.diff(ends)  # unseen tickets of each user
        self._stride = total + 1  # larger than any b_j, so that the array of all users is sorted
        users = np.arange(train.num_users, dtype=np.int64)
        self._below = np.repeat(users * self._stride + self._base, train.user_degrees)  # 8 bytes per interaction
        for first in range(0, len(items), BLOCK):
            part = slice(first, first + BLOCK)
            self._below[part] += items[part] if self._before is None else self._before[items[part]]
            last = min(first + BLOCK, len(items))
            self._below[part] -= np.arange(first, last) if self._passed is None else self._passed[first:last]

    def draw(self, users: Ids, number: int, generator: np.random.Generator) -> Ids:
        """``number`` unseen items for each user, (n,) -> (n, number). Each user must have some."""
        rank = generator.integers(0, self.counts[users][:, None], (len(users), number))
        return self.pick(users, rank)

    def pick(self, users: Ids, rank: Ids) -> Ids:
        """The items of the unseen tickets with these ranks (from 0, by id), (n,) and (n, K) -> (n, K)."""
        end = np.searchsorted(self._below, users[:, None] * self._stride + rank, side="right")
        ticket = rank + (end if self._passed is None else self._passed[end]) - self._base[users][:, None]
        item: Ids = ticket if self._before is None else np.searchsorted(self._before, ticket, side="right") - 1
        return item


def popularity_tickets(train: Interactions, power: float) -> Ids:
    """Tickets (I,) in proportion to the number of users to ``power``, at least 1, so that each user has unseen ones."""
    weights = train.item_degrees.astype(np.float64) ** power
    most = min(MOST_TICKETS, 2**62 // max(train.num_users, 1) - train.num_items)
    tickets: Ids = np.maximum(weights * (most / max(weights.sum(), 1e-300)), 1).astype(np.int64)
    return tickets


def log_odds(tickets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The log of how many times more often than uniformly each item is drawn, float32 (I,)."""
    odds: npt.NDArray[np.float32] = np.log(np.maximum(tickets, 1) * (len(tickets) / tickets.sum())).astype(np.float32)
    return odds


class Sampler:
    """Base class of all samplers: shuffles the interactions and cuts batches. Subclasses implement ``complete``.

    Parameters
    ----------
    train
        The interactions. Those of users who have every item are left out.
    generator
        Source of all draws. Its state is saved, so that a resumed run continues its stream.
    settings
        The recipe's settings: an instance of the class that the sampler is registered with.
    """

    def __init__(self, train: Interactions, generator: np.random.Generator, settings: SamplerSettings) -> None:
        self.train, self.generator, self.settings = train, generator, settings
        self._users, self._items = train.users, train.items
        usable = train.user_degrees < train.num_items
        if not usable.all():
            usable = usable[self._users]
            self._users, self._items = self._users[usable], self._items[usable]
        if not len(self._users):
            raise TrainingError(
                f"no interaction to train on: of {train.num_interactions} in train, every user has all "
                f"{train.num_items} items, which leaves no negative"
            )

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return -(-len(self._users) // self.settings.batch)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch, which has each usable interaction once."""
        order = np.arange(len(self._users), dtype=np.int32)
        self.generator.shuffle(order)
        for start in range(0, len(order), self.settings.batch):
            chosen = order[start : start + self.settings.batch]
            yield self.complete(self._users[chosen].astype(np.int64), self._items[chosen].astype(np.int64))

    def complete(self, users: Ids, positives: Ids) -> Batch:
        """The batch of these interactions (B,), with negatives."""
        raise NotImplementedError

    def collisions(self, users: Ids, negatives: Ids) -> Ids:
        """The pairs (row, column) of users (B,) and negatives (K,) that are in train, (2, M), by column."""
        indptr, holders = self._by_item
        start, degree = indptr[negatives], indptr[negatives + 1] - indptr[negatives]
        shift = np.repeat(start - np.cumsum(degree) + degree, degree)
        holder = holders[shift + np.arange(len(shift))]
        column = np.repeat(np.arange(len(negatives)), degree)
        order = np.argsort(users, kind="stable")  # a user may occur several times in a batch
        first = np.full(self.train.num_users, -1, np.int64)
        named, at, times = np.unique(users[order], return_index=True, return_counts=True)
        first[named] = np.arange(len(named))
        group = first[holder]
        here = group >= 0
        group, column = group[here], column[here]
        times, at = times[group], at[group]
        shift = np.repeat(at - np.cumsum(times) + times, times)
        return np.stack([order[shift + np.arange(len(shift))], np.repeat(column, times)])

    @cached_property
    def _by_item(self) -> tuple[Ids, npt.NDArray[np.int32]]:
        """The users of each item in CSR form: indptr (I + 1,), users (N,)."""
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.train.item_degrees)])
        return indptr, self.train.users[np.argsort(self.train.items, kind="stable")]
