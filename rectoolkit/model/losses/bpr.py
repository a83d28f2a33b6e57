"""The ``bpr`` loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rectoolkit.model.losses.base import Loss, Side, Views, weighted_squares, weighted_sum
from rectoolkit.model.losses.settings import BPRSettings
from rectoolkit.recipe.registry import losses


@losses.register("bpr", BPRSettings)
class BPR(Loss):
    """Bayesian personalised ranking (Rendle et al., UAI 2009): mean softplus(<u, j> - <u, i>).

    With s = <u, i - j> and w = sigma(s)(1 - sigma(s)), the diagonal of the Hessian is, per pair and dim, w (i - j)^2
    for the user and w u^2 for each of the two items. It is averaged over the B K pairs, as the loss is.
    """

    def rank(self, views: Views) -> Tensor:
        positives, negatives = views.scores()
        return functional.softplus(negatives - positives[:, None]).mean()

    @torch.no_grad()
    def curvature(self, views: Views, side: Side, weights: tuple[Tensor, ...] | None = None) -> Tensor:
        triple, counted = views.coded, views.weights(side, weights)
        positives, negatives = views.scores()
        wrong = torch.sigmoid(negatives - positives[:, None])
        weight = wrong * (1 - wrong) / wrong.numel()
        if side == "items":
            return (weight * (counted[0][:, None] + counted[1])).sum(1) @ triple.users.square()
        weight = weight * counted[0][:, None]
        own, cross = weight.sum(1)[:, None], weighted_sum(weight, triple.negatives)  # (i - j)^2 without its (B, K, D)
        mixed = (own * triple.positives.square() - 2 * triple.positives * cross).sum(0)
        return mixed + weighted_squares(weight, triple.negatives)
