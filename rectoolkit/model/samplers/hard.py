"""The ``hard`` sampler."""

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


from rectoolkit.model.samplers.base import Batch
from rectoolkit.model.samplers.uniform import Uniform


@samplers.register("hard")
class Hard(Uniform):
    """Dynamic negatives (Zhang et al., SIGIR 2013): of n even draws from the unseen, the one that now scores best.

    The sampler draws the candidates; the model, which has the scores at hand, keeps the best (``Views.hardest``):
    only those enter the loss and the gradient. Codes tie often; the first drawn of the best is kept.
    """

    def __init__(
        self,
        train: Interactions,
        generator: np.random.Generator,
        *,
        candidates: Annotated[int, Field(ge=2, le=1024, description="draws that each negative is the best of")] = 8,
        **settings: Any,
    ) -> None:
        super().__init__(train, generator, **settings)
        self.candidates = candidates

    def complete(self, users: Ids, positives: Ids) -> Batch:
        negatives = self.unseen.draw(users, self.negatives * self.candidates, self.generator)
        rows = torch.from_numpy(users), torch.from_numpy(positives), torch.from_numpy(negatives)
        return Batch(*rows, best_of=self.candidates)
