"""The ``in_batch`` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from rectoolkit.model.samplers.base import Batch, Sampler, log_odds
from rectoolkit.model.samplers.settings import InBatchSettings
from rectoolkit.recipe.registry import samplers

if TYPE_CHECKING:
    from rectoolkit.data import Interactions
    from rectoolkit.model.samplers.base import Ids


@samplers.register("in_batch", InBatchSettings)
class InBatch(Sampler):
    """The batch's positives are the negatives of all its rows: K = B, and nothing is drawn.

    Items occur in proportion to their popularity, which ``log_odds`` states (Yi et al., RecSys 2019). Pairs that are in
    train are ``collisions``, and so is each row's own positive.
    """

    def __init__(self, train: Interactions, generator: np.random.Generator, settings: InBatchSettings) -> None:
        super().__init__(train, generator, settings)
        self._log_odds = torch.from_numpy(log_odds(np.asarray(train.item_degrees, np.int64)))

    def complete(self, users: Ids, positives: Ids) -> Batch:
        items, collisions = torch.from_numpy(positives), torch.from_numpy(self.collisions(users, positives))
        return Batch(torch.from_numpy(users), items, items, collisions, self._log_odds[items])
