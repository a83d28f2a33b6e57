"""The ``popularity`` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rectoolkit.model.samplers.base import Batch, Sampler, Unseen, log_odds, popularity_tickets
from rectoolkit.model.samplers.settings import PopularitySettings
from rectoolkit.recipe.registry import samplers

if TYPE_CHECKING:
    import numpy as np

    from rectoolkit.data import Interactions
    from rectoolkit.model.samplers.base import Ids


@samplers.register("popularity", PopularitySettings)
class Popularity(Sampler):
    """Negatives drawn from the user's unseen items in proportion to (number of users)^power.

    Power 0.75 is word2vec's (Mikolov et al., NeurIPS 2013); power 0 equals ``uniform`` up to rounding. An item without
    users has one ticket in up to 2^52, so that a user who has every popular item still gets a negative.
    """

    settings: PopularitySettings

    def __init__(self, train: Interactions, generator: np.random.Generator, settings: PopularitySettings) -> None:
        super().__init__(train, generator, settings)
        tickets = popularity_tickets(train, settings.power)
        self.unseen, self._log_odds = Unseen(train, tickets), torch.from_numpy(log_odds(tickets))

    def complete(self, users: Ids, positives: Ids) -> Batch:
        negatives = torch.from_numpy(self.unseen.draw(users, self.settings.negatives, self.generator))
        odds = self._log_odds[negatives]
        return Batch(torch.from_numpy(users), torch.from_numpy(positives), negatives, log_odds=odds)
