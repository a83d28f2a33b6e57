"""The ``uniform`` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rectoolkit.model.samplers.base import Batch, Sampler, Unseen
from rectoolkit.model.samplers.settings import UniformSettings
from rectoolkit.recipe.registry import samplers

if TYPE_CHECKING:
    import numpy as np

    from rectoolkit.data import Interactions
    from rectoolkit.model.samplers.base import Ids


@samplers.register("uniform", UniformSettings)
class Uniform(Sampler):
    """K negatives per interaction, drawn uniformly from the items that the user does not have in train."""

    settings: UniformSettings

    def __init__(self, train: Interactions, generator: np.random.Generator, settings: UniformSettings) -> None:
        super().__init__(train, generator, settings)
        self.unseen = Unseen(train)

    def complete(self, users: Ids, positives: Ids) -> Batch:
        negatives = self.unseen.draw(users, self.settings.negatives, self.generator)
        return Batch(torch.from_numpy(users), torch.from_numpy(positives), torch.from_numpy(negatives))
