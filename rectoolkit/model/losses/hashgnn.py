"""The ``hashgnn`` loss."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rectoolkit.model.losses.base import L2, Loss, Side, Views
from rectoolkit.model.losses.bce import BCE
from rectoolkit.model.losses.bpr import BPR
from rectoolkit.recipe.registry import losses


@losses.register("hashgnn")
class HashGNNLoss(Loss):
    """HashGNN's loss (WWW 2020): weight * cross-entropy + ranking, as ``bce`` and ``bpr`` have them.

    Departs from the paper: its ranking part is a triplet hinge; BPR is what its code has. The cross-entropy is over
    the batch's positives and negatives.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0, description="weight of the cross-entropy against the ranking")] = 0.1,
        l2: L2 = 1e-4,
    ) -> None:
        super().__init__(l2=l2)
        self.weight, self.entropy, self.ranking = weight, BCE(l2=0.0), BPR(l2=0.0)

    def rank(self, views: Views) -> Tensor:
        return self.weight * self.entropy.rank(views) + self.ranking.rank(views)

    @torch.no_grad()
    def curvature(self, views: Views, side: Side, weights: tuple[Tensor, ...] | None = None) -> Tensor:
        entropy, ranking = (loss.curvature(views, side, weights) for loss in (self.entropy, self.ranking))
        return self.weight * entropy + ranking
