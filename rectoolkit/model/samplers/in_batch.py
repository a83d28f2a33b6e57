"""The ``in_batch`` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field

from rectoolkit.recipe.registry import samplers

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.data import Interactions

    Ids = npt.NDArray[np.int64]


from rectoolkit.model.samplers.base import Batch, Sampler, log_odds


@samplers.register("in_batch")
class InBatch(Sampler):
    """The batch's positives as everyone's negatives, without a draw: K = B.

    They come by popularity, which ``log_odds`` states (Yi et al., RecSys 2019). Pairs that are in train are
    ``collisions``, each row's own positive among them.
    """

    def __init__(
        self,
        train: Interactions,
        generator: np.random.Generator,
        *,
        batch: Annotated[int, Field(ge=2, description="interactions in a batch, and negatives of each")] = 2048,
    ) -> None:
        super().__init__(train, generator, batch=batch, negatives=batch)
        self._log_odds = torch.from_numpy(log_odds(np.asarray(train.item_degrees, np.int64)))

    def complete(self, users: Ids, positives: Ids) -> Batch:
        items, collisions = torch.from_numpy(positives), torch.from_numpy(self.collisions(users, positives))
        return Batch(torch.from_numpy(users), items, items, collisions, self._log_odds[items])
