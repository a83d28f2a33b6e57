"""The ``hinge`` loss."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from rectoolkit.model.losses.base import L2, Loss, Views
from rectoolkit.recipe.registry import losses


@losses.register("hinge")
class Hinge(Loss):
    """Triplet hinge: mean max(0, margin + <u, j> - <u, i>).

    No ``curvature``: scores are bilinear and the hinge is flat or straight, so its Hessian's diagonal is 0
    wherever it exists, and a gradient scaled by it would be the plain straight-through estimator's.
    """

    def __init__(
        self,
        *,
        margin: Annotated[float, Field(gt=0, description="how far a positive shall score above a negative")] = 1.0,
        l2: L2 = 1e-4,
    ) -> None:
        super().__init__(l2=l2)
        self.margin = margin

    def rank(self, views: Views) -> Tensor:
        positives, negatives = views.scores()
        return functional.relu(self.margin + negatives - positives[:, None]).mean()
