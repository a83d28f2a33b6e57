"""Samplers: the train interactions as batches of (user, positive, negatives), a new order every epoch.

A negative is never an item that its user has in train, and no draw is rejected for it. A user with d seen items
s_0 < s_1 < ... has I - d unseen; the r-th of them (r from 0) is r + #{j : s_j - j <= r}, since s_j - j counts the
unseen items below s_j. That count is one binary search in the array of all users' s_j - j, so a draw is exact and
costs O(log N) however many items a user has. Users who have seen every item have no negative and are left out.

A run supplies, before the ``*``: ``train`` (Interactions) and ``generator`` (numpy Generator).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rectoolkit.errors import TrainingError
from rectoolkit.registry import samplers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from rectoolkit.data import Interactions

    Ids = npt.NDArray[np.int64]

BatchSize = Annotated[int, Field(ge=1, description="interactions in a batch")]
Negatives = Annotated[int, Field(ge=1, le=65536, description="negatives for each interaction")]


@dataclass(frozen=True)
class Batch:
    """Ids of one batch, int64: users (B,), positives (B,), negatives (B, K), or (K,) shared by the whole batch.

    ``collisions`` (2, M), with shared negatives: the pairs (row of the batch, column of the negatives) in which the
    user has the item in train. ``log_odds`` (K,): the log of the expected number of times that a shared negative
    is drawn, where the sampler does not draw items evenly.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor
    collisions: Tensor | None = None
    log_odds: Tensor | None = None


class Unseen:
    """Draws items that a user has not in train, exactly and without rejection."""

    def __init__(self, train: Interactions) -> None:
        self._indptr = np.asarray(train.indptr, np.int64)
        self._num_items = train.num_items
        degrees = np.diff(self._indptr)
        self.counts = train.num_items - degrees  # unseen items by user
        users = np.repeat(np.arange(train.num_users, dtype=np.int64), degrees)
        place = np.arange(len(users)) - self._indptr[users]
        # s_j - j < I, so one stride of I + 1 a user keeps the whole array sorted
        self._below = users * (train.num_items + 1) + (np.asarray(train.items, np.int64) - place)

    def draw(self, users: Ids, number: int, generator: np.random.Generator) -> Ids:
        """``number`` items evenly from the unseen of each user, (n,) -> (n, number); every count must be > 0."""
        rank = generator.integers(0, self.counts[users][:, None], (len(users), number))
        return self.pick(users, rank)

    def pick(self, users: Ids, rank: Ids) -> Ids:
        """The unseen item of that rank (from 0, by id), (n,) and (n, K) -> (n, K)."""
        keys = users[:, None] * (self._num_items + 1) + rank
        return rank + np.searchsorted(self._below, keys, side="right") - self._indptr[users][:, None]


class Sampler:
    """Base of every sampler: shuffles the interactions and cuts batches. Subclasses implement ``complete``."""

    def __init__(
        self, train: Interactions, generator: np.random.Generator, *, batch: int = 2048, negatives: int = 1
    ) -> None:
        self.train, self.generator, self.batch, self.negatives = train, generator, batch, negatives
        self.unseen = Unseen(train)
        users, items = np.asarray(train.users, np.int64), np.asarray(train.items, np.int64)
        usable = self.unseen.counts[users] > 0
        self._users, self._items = (users, items) if usable.all() else (users[usable], items[usable])
        if not len(self._users):
            raise TrainingError(
                f"no interaction to train on: of {train.num_interactions} in train, every user has all "
                f"{train.num_items} items, which leaves no negative"
            )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._users) // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        """One epoch: every usable interaction once."""
        order = self.generator.permutation(len(self._users))
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            yield self.complete(self._users[chosen], self._items[chosen])

    def complete(self, users: Ids, positives: Ids) -> Batch:
        """The batch of these interactions, with its negatives."""
        raise NotImplementedError


@samplers.register("uniform")
class Uniform(Sampler):
    """Negatives drawn evenly from the items that the user has not in train, K for each interaction."""

    def __init__(
        self,
        train: Interactions,
        generator: np.random.Generator,
        *,
        batch: BatchSize = 2048,
        negatives: Negatives = 1,
    ) -> None:
        super().__init__(train, generator, batch=batch, negatives=negatives)

    def complete(self, users: Ids, positives: Ids) -> Batch:
        negatives = self.unseen.draw(users, self.negatives, self.generator)
        return Batch(torch.from_numpy(users), torch.from_numpy(positives), torch.from_numpy(negatives))
