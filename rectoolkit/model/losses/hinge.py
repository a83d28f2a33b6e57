"""The ``hinge`` loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from rectoolkit.model.losses.base import Loss, Views
from rectoolkit.model.losses.settings import HingeSettings
from rectoolkit.recipe.registry import losses


@losses.register("hinge", HingeSettings)
class Hinge(Loss):
    """Triplet hinge: mean max(0, margin + <u, j> - <u, i>).

    No ``curvature``: scores are bilinear and the hinge is flat or straight, so its Hessian's diagonal is 0
    wherever it exists, and a gradient scaled by it would be the plain straight-through estimator's.
    """

    settings: HingeSettings

    def rank(self, views: Views) -> Tensor:
        positives, negatives = views.scores()
        return functional.relu(self.settings.margin + negatives - positives[:, None]).mean()
