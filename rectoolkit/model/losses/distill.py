"""Distillation of a float teacher's ranking, as in BiGeaR (KDD 2022): what it ranks high counts as liked.

    L = BPR + weight * mean over users of sum_r w_r softplus(-<u, i_r>),    w_r = exp(-decay (r + 1)),  r = 0 .. top-1

i_r is the r-th item of the user's list by the teacher's inner products. The teacher is a finished run without a
quantizer (``teacher`` names its folder), whose embeddings lie in ``users.npy`` and ``items.npy``. The lists are made
at the first batch, in blocks: 4 bytes times ``top`` a user.

Departs from the paper: of the list, ``draws`` ranks are drawn for each batch row, with odds w_r, and their mean is
scaled by the sum of the w_r: the same loss in expectation for a tenth of the gathers. The lists are the final
rows', not one a layer; they may hold items that the user has in train.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from rectoolkit.model.losses.base import Loss, Triple, Views
from rectoolkit.model.losses.bpr import BPR
from rectoolkit.model.losses.settings import BPRSettings, DistillSettings
from rectoolkit.model.losses.teacher import Taught
from rectoolkit.recipe.registry import losses

if TYPE_CHECKING:
    from rectoolkit.data import Interactions
    from rectoolkit.model.samplers.base import Batch


@losses.register("distill", DistillSettings)
class Distill(Taught, Loss):
    """BPR plus the cross-entropy of the items that a teacher ranks high."""

    def __init__(self, train: Interactions, seed: int, settings: DistillSettings) -> None:
        super().__init__(settings)
        self.weight, self.draws = settings.weight, settings.draws
        self.ranking = BPR(BPRSettings(l2=0.0))
        self.learn_from(train, seed)

    def prepare(self, batch: Batch) -> Batch:
        """The batch with ``draws`` of the teacher's items for each row behind its negatives, (B, K + draws)."""
        users = batch.users.cpu()
        ranks = self.draw_ranks(len(users) * self.draws, self.next_draws()).view(-1, self.draws)
        items = self.lists[users[:, None], ranks].to(batch.negatives)
        return replace(batch, negatives=torch.cat([batch.negatives, items], 1))

    def rank(self, views: Views) -> Tensor:
        taught = views.coded.negatives[:, -self.draws :]
        scores = torch.einsum("bd,bkd->bk", views.coded.users, taught)
        total = float(self.odds.sum())
        own = replace(views, coded=self._without_taught(views.coded))
        return self.ranking.rank(own) + self.weight * total * functional.softplus(-scores).mean()

    def lengths(self, ego: Triple) -> Tensor:
        return super().lengths(self._without_taught(ego))

    def _without_taught(self, triple: Triple) -> Triple:
        return replace(triple, negatives=triple.negatives[:, : -self.draws])
