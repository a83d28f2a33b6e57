"""The ``hashgnn`` loss."""

from __future__ import annotations

import torch
from torch import Tensor

from rectoolkit.model.losses.base import Loss, Side, Views
from rectoolkit.model.losses.bce import BCE
from rectoolkit.model.losses.bpr import BPR
from rectoolkit.model.losses.settings import BCESettings, BPRSettings, HashGNNSettings
from rectoolkit.recipe.registry import losses


@losses.register("hashgnn", HashGNNSettings)
class HashGNNLoss(Loss):
    """HashGNN's loss (WWW 2020): weight * cross-entropy + ranking, the losses ``bce`` and ``bpr``.

    Differs from the paper: its ranking loss is a triplet hinge; this is BPR, as in its code. The cross-entropy is over
    the positives and negatives of the batch.
    """

    def __init__(self, settings: HashGNNSettings) -> None:
        super().__init__(settings)
        self.weight, self.entropy = settings.weight, BCE(BCESettings(l2=0.0))
        self.ranking = BPR(BPRSettings(l2=0.0))

    def rank(self, views: Views) -> Tensor:
        return self.weight * self.entropy.rank(views) + self.ranking.rank(views)

    @torch.no_grad()
    def curvature(self, views: Views, side: Side, weights: tuple[Tensor, ...] | None = None) -> Tensor:
        entropy, ranking = (loss.curvature(views, side, weights) for loss in (self.entropy, self.ranking))
        return self.weight * entropy + ranking
