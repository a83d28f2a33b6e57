"""Pointwise losses: each score is a logit of its own. ``bce``, and ``hashgnn``, which adds a ranking to it."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from rectoolkit.losses.base import L2, Loss, Side, Views, weighted_squares
from rectoolkit.losses.pairwise import BPR
from rectoolkit.registry import losses


@losses.register("bce")
class BCE(Loss):
    """Binary cross-entropy of logits: mean softplus(-<u, i>) + negative_weight * mean softplus(<u, j>).

    The Hessian's diagonal is, with w = sigma(s)(1 - sigma(s)) per score, w v^2 for the user and w u^2 for item v.
    """

    def __init__(
        self,
        *,
        negative_weight: Annotated[float, Field(gt=0, description="weight of all negatives against positives")] = 1.0,
        l2: L2 = 1e-4,
    ) -> None:
        super().__init__(l2=l2)
        self.negative_weight = negative_weight

    def rank(self, views: Views) -> Tensor:
        positives, negatives = views.scores()
        return functional.softplus(-positives).mean() + self.negative_weight * functional.softplus(negatives).mean()

    @torch.no_grad()
    def curvature(self, views: Views, side: Side, weights: tuple[Tensor, ...] | None = None) -> Tensor:
        triple, counted = views.coded, views.weights(side, weights)
        likely = [torch.sigmoid(scores) for scores in views.scores()]
        positives, negatives = (p * (1 - p) / p.numel() for p in likely)
        negatives = self.negative_weight * negatives
        if side == "items":
            return (counted[0] * positives + (counted[1] * negatives).sum(1)) @ triple.users.square()
        positives, negatives = counted[0] * positives, counted[0][:, None] * negatives
        return positives @ triple.positives.square() + weighted_squares(negatives, triple.negatives)


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
