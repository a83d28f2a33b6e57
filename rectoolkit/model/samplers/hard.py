"""The ``hard`` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rectoolkit.model.samplers.base import Batch
from rectoolkit.model.samplers.settings import HardSettings
from rectoolkit.model.samplers.uniform import Uniform
from rectoolkit.recipe.registry import samplers

if TYPE_CHECKING:
    from rectoolkit.model.samplers.base import Ids


@samplers.register("hard", HardSettings)
class Hard(Uniform):
    """Dynamic negative sampling (Zhang et al., SIGIR 2013): of n uniform draws from the unseen items, the best scored.

    The sampler draws the candidates. The model, which computes the scores, keeps the best (``Views.hardest``), and only
    those enter the loss and the gradient. Codes often tie; of the best candidates the one drawn first is kept.
    """

    settings: HardSettings

    def complete(self, users: Ids, positives: Ids) -> Batch:
        candidates = self.settings.candidates
        negatives = self.unseen.draw(users, self.settings.negatives * candidates, self.generator)
        rows = torch.from_numpy(users), torch.from_numpy(positives), torch.from_numpy(negatives)
        return Batch(*rows, best_of=candidates)
