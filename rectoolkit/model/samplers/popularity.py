"""The ``popularity`` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rectoolkit.recipe.registry import samplers

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.data import Interactions

    Ids = npt.NDArray[np.int64]


from rectoolkit.model.samplers.base import Batch, Power, Sampler, Unseen, log_odds, popularity_tickets


@samplers.register("popularity")
class Popularity(Sampler):
    """Negatives drawn from the user's unseen items by popularity: with odds of (number of users)^power.

    Power 0.75 is word2vec's (Mikolov et al., NeurIPS 2013). 0 is ``uniform`` up to rounding. An item without users
    has one ticket in up to 2^52, so that users who have every popular item still find a negative.
    """

    def __init__(
        self,
        train: Interactions,
        generator: np.random.Generator,
        *,
        power: Power = 0.75,
        **settings: Any,
    ) -> None:
        super().__init__(train, generator, **settings)
        tickets = popularity_tickets(train, power)
        self.unseen, self._log_odds = Unseen(train, tickets), torch.from_numpy(log_odds(tickets))

    def complete(self, users: Ids, positives: Ids) -> Batch:
        negatives = torch.from_numpy(self.unseen.draw(users, self.negatives, self.generator))
        odds = self._log_odds[negatives]
        return Batch(torch.from_numpy(users), torch.from_numpy(positives), negatives, log_odds=odds)
