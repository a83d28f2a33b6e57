"""Sampled softmax: the positive against all negatives of the row at once.

    z_i = <u, i> / temperature                   of the positive
    z_j = <u, j> / temperature - log_odds_j      of each negative
    L = mean over rows of  -z_i + log(exp z_i + sum_j exp z_j)

With many negatives, shared by the batch, it needs tens of epochs where BPR needs hundreds. If a sampler does not draw
uniformly, ``correct`` subtracts the log odds of its draws from the logits of the negatives (Bengio and Senecal, 2008;
Yi et al., RecSys 2019). The odds are relative to uniform draws, so that the temperature means the same for every
sampler. The positive is not drawn by the sampler, so its logit is not corrected.

With p = softmax(z) over the positive and the negatives, the diagonal of the Hessian is, divided by temperature^2 and B,
sum_v p_v v^2 - (sum_v p_v v)^2 for the user and p_v (1 - p_v) u^2 for item v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rectoolkit.model.losses.base import Loss, Side, Views, weighted_squares, weighted_sum
from rectoolkit.model.losses.fused import Shared, shared_curvature, shared_softmax
from rectoolkit.model.losses.settings import SoftmaxSettings
from rectoolkit.recipe.registry import losses


@losses.register("softmax", SoftmaxSettings)
class Softmax(Loss):
    """Sampled softmax over the positive and K negatives, corrected for the odds with which these are drawn."""

    def __init__(self, settings: SoftmaxSettings) -> None:
        super().__init__(settings)
        self.temperature, self.correct = settings.temperature, settings.correct

    def rank(self, views: Views) -> Tensor:
        triple = views.coded
        if triple.negatives.dim() == 2:
            return shared_softmax(triple, self._shared(views))
        positives, negatives = self._logits(views)
        return (torch.logaddexp(positives, negatives.logsumexp(1)) - positives).mean()

    @torch.no_grad()
    def curvature(self, views: Views, side: Side, weights: tuple[Tensor, ...] | None = None) -> Tensor:
        triple, counted = views.coded, views.weights(side, weights)
        if triple.negatives.dim() == 2:
            return shared_curvature(triple, self._shared(views), counted)
        positives, negatives = self._logits(views)
        chances = torch.softmax(torch.cat([positives[:, None], negatives], 1), 1)
        share = 1 / (self.temperature**2 * len(positives))
        if side == "items":
            of_rows = torch.cat([counted[0][:, None], counted[1].expand_as(negatives)], 1)
            return share * (of_rows * chances * (1 - chances)).sum(1) @ triple.users.square()
        own, rest = chances[:, :1], chances[:, 1:]
        mean = own * triple.positives + weighted_sum(rest, triple.negatives)
        own, rest = counted[0][:, None] * own, counted[0][:, None] * rest
        second = weighted_squares(rest, triple.negatives) + (own * triple.positives.square()).sum(0)
        return share * (second - counted[0] @ mean.square())

    def _shared(self, views: Views) -> Shared:
        return Shared(self.temperature, views.batch.log_odds if self.correct else None, views.batch.collisions)

    def _logits(self, views: Views) -> tuple[Tensor, Tensor]:
        positives, negatives = views.scores()
        negatives = negatives / self.temperature
        if self.correct and views.batch.log_odds is not None:
            negatives = negatives - views.batch.log_odds
        return positives / self.temperature, negatives
