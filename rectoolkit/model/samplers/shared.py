"""The ``shared`` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from rectoolkit.model.samplers.base import Batch, Sampler, log_odds, popularity_tickets
from rectoolkit.model.samplers.settings import SharedSettings
from rectoolkit.recipe.registry import samplers

if TYPE_CHECKING:
    from rectoolkit.data import Interactions
    from rectoolkit.model.samplers.base import Ids


@samplers.register("shared", SharedSettings)
class Shared(Sampler):
    """K negatives drawn once per batch and shared by all its rows, so that one matrix product scores them.

    They are drawn with repetition, in proportion to popularity to the power ``power`` (0 for uniform draws). Pairs that
    are in train are ``collisions``.
    """

    settings: SharedSettings

    def __init__(self, train: Interactions, generator: np.random.Generator, settings: SharedSettings) -> None:
        super().__init__(train, generator, settings)
        power = settings.power
        tickets = popularity_tickets(train, power) if power else np.ones(train.num_items, np.int64)
        self._ends = np.cumsum(tickets)
        self._log_odds = torch.from_numpy(log_odds(tickets)) if power else None

    def complete(self, users: Ids, positives: Ids) -> Batch:
        ticket = self.generator.integers(0, self._ends[-1], self.settings.negatives)
        negatives = np.searchsorted(self._ends, ticket, side="right")
        collisions = torch.from_numpy(self.collisions(users, negatives))
        odds = None if self._log_odds is None else self._log_odds[negatives]
        rows = torch.from_numpy(users), torch.from_numpy(positives), torch.from_numpy(negatives)
        return Batch(*rows, collisions, odds)
