"""Distillation of a float32 teacher's ranking, as in BiGeaR (KDD 2022): items that it ranks high count as positives.

    L = BPR + weight * mean over users of sum_r w_r softplus(-<u, i_r>),    w_r = exp(-decay (r + 1)),  r = 0 .. top-1

i_r is the r-th item of the user's list by the teacher's inner products. The teacher is a finished run without a
quantizer, whose embeddings are in ``users.npy`` and ``items.npy``. The lists are computed at the first batch, in
blocks, and take 4 bytes times ``top`` per user.

Differs from the paper: each batch row draws ``draws`` ranks of the list, with odds w_r, and their mean is multiplied by
the sum of the w_r. The loss is the same in expectation for a tenth of the gathers. The lists come from the final rows,
not from each layer, and may hold items that the user has in train.
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
    """BPR plus the cross-entropy of items that a teacher ranks high."""

    def __init__(self, train: Interactions, seed: int, settings: DistillSettings) -> None:
        super().__init__(settings)
        self.weight, self.draws = settings.weight, settings.draws
        self.ranking = BPR(BPRSettings(l2=0.0))
        self.learn_from(train, seed)

    def prepare(self, batch: Batch) -> Batch:
        """The batch with ``draws`` items of the teacher appended to the negatives of each row, (B, K + draws)."""
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
