"""The ``bce`` loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rectoolkit.model.losses.base import Loss, Side, Views, weighted_squares
from rectoolkit.model.losses.settings import BCESettings
from rectoolkit.recipe.registry import losses


@losses.register("bce", BCESettings)
class BCE(Loss):
    """Binary cross-entropy of logits: mean softplus(-<u, i>) + negative_weight * mean softplus(<u, j>).

    With w = sigma(s)(1 - sigma(s)) per score, the diagonal of the Hessian is w v^2 for the user and w u^2 for item v.
    """

    settings: BCESettings

    def rank(self, views: Views) -> Tensor:
        positives, negatives = views.scores()
        return (
            functional.softplus(-positives).mean()
            + self.settings.negative_weight * functional.softplus(negatives).mean()
        )

    @torch.no_grad()
    def curvature(self, views: Views, side: Side, weights: tuple[Tensor, ...] | None = None) -> Tensor:
        triple, counted = views.coded, views.weights(side, weights)
        likely = [torch.sigmoid(scores) for scores in views.scores()]
        positives, negatives = (p * (1 - p) / p.numel() for p in likely)
        negatives = self.settings.negative_weight * negatives
        if side == "items":
            return (counted[0] * positives + (counted[1] * negatives).sum(1)) @ triple.users.square()
        positives, negatives = counted[0] * positives, counted[0][:, None] * negatives
        return positives @ triple.positives.square() + weighted_squares(negatives, triple.negatives)
