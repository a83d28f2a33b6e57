"""The ``uniform`` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rectoolkit.recipe.registry import samplers

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.data import Interactions

    Ids = npt.NDArray[np.int64]


from rectoolkit.model.samplers.base import Batch, Sampler, Unseen


@samplers.register("uniform")
class Uniform(Sampler):
    """Negatives drawn evenly from the items that the user has not in train, K for each interaction."""

    def __init__(self, train: Interactions, generator: np.random.Generator, **settings: Any) -> None:
        super().__init__(train, generator, **settings)
        self.unseen = Unseen(train)

    def complete(self, users: Ids, positives: Ids) -> Batch:
        negatives = self.unseen.draw(users, self.negatives, self.generator)
        return Batch(torch.from_numpy(users), torch.from_numpy(positives), torch.from_numpy(negatives))
