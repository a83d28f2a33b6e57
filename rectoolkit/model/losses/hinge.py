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

    It has no ``curvature``: scores are bilinear and the hinge is piecewise linear, so the diagonal of its Hessian is 0
    wherever it exists, and a gradient scaled by it would be that of the straight-through estimator.
    """

    settings: HingeSettings

    def rank(self, views: Views) -> Tensor:
        positives, negatives = views.scores()
        return functional.relu(self.settings.margin + negatives - positives[:, None]).mean()
