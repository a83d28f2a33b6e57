"""The ``shared`` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field

from rectoolkit.recipe.registry import samplers

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.data import Interactions

    Ids = npt.NDArray[np.int64]


from rectoolkit.model.samplers.base import Batch, Power, Sampler, log_odds, popularity_tickets


@samplers.register("shared")
class Shared(Sampler):
    """K negatives drawn once for a batch and shared by it: one matrix product scores them all.

    By popularity to ``power``, 0 for evenly, with repetition; pairs that are in train are ``collisions``.
    """

    def __init__(
        self,
        train: Interactions,
        generator: np.random.Generator,
        *,
        negatives: Annotated[int, Field(ge=1, le=65536, description="negatives for a batch")] = 1024,
        power: Power = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(train, generator, negatives=negatives, **settings)
        tickets = popularity_tickets(train, power) if power else np.ones(train.num_items, np.int64)
        self._ends = np.cumsum(tickets)
        self._log_odds = torch.from_numpy(log_odds(tickets)) if power else None

    def complete(self, users: Ids, positives: Ids) -> Batch:
        ticket = self.generator.integers(0, self._ends[-1], self.negatives)
        negatives = np.searchsorted(self._ends, ticket, side="right")
        collisions = torch.from_numpy(self.collisions(users, negatives))
        odds = None if self._log_odds is None else self._log_odds[negatives]
        rows = torch.from_numpy(users), torch.from_numpy(positives), torch.from_numpy(negatives)
        return Batch(*rows, collisions, odds)
