"""Sampled softmax in which a teacher says what is liked: a ranking taught where data alone is learned by heart.

It says so in two ways, which may be mixed: by the positives it draws, and by what each row aims at.

    L = mean over rows of  -z_i + log(exp z_i + sum_j exp z_j),    i drawn from the teacher's list of the user

The list holds the ``top`` items that the teacher ranks highest among those the user has not in train: what is served.
Rank r is drawn with odds exp(-decay (r + 1)); a row's user is drawn evenly from those in train, since metrics are means
over users and of others the teacher knows nothing. With ``own`` > 0 that share of the rows keeps the user and item that
the sampler drew. Codes of one bit have no lengths to say what is popular with, and under the data's own pairs they
learn what is near in train instead; the list says what a smooth, regularised float model concludes (ranking
distillation, Tang and Wang, KDD 2018).

``soft`` > 0: that share of a row's target is the teacher's own softmax over the same positive and negatives, its scores
over ``teacher_temperature`` (soft targets: Hinton et al., 2015),

    L = mean over rows of  -sum_v t_v log p_v,    t = (1 - soft) [v = i] + soft softmax(teacher's z)

so that what is learned of each item drawn is how much the teacher thinks of it, and not only whether it is in train.
A softmax teacher's chances are those of its own temperature.

Negatives are the sampler's, shared by the batch. Some are items of the user's own list or train: at 1024 of 41,000
items about 3 in a row, and they are not left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rectoolkit.model.losses.base import Views
from rectoolkit.model.losses.fused import Shared, Targets
from rectoolkit.model.losses.settings import SoftmaxDistillSettings
from rectoolkit.model.losses.softmax import Softmax
from rectoolkit.model.losses.teacher import Taught
from rectoolkit.recipe.registry import losses

if TYPE_CHECKING:
    from rectoolkit.data import Interactions
    from rectoolkit.model.samplers.base import Batch


@losses.register("softmax_distill", SoftmaxDistillSettings)
class SoftmaxDistill(Taught, Softmax):
    """Sampled softmax over shared negatives, whose positives or targets are a float teacher's."""

    def __init__(self, train: Interactions, seed: int, settings: SoftmaxDistillSettings) -> None:
        super().__init__(settings)
        self.own, self.soft, self.teacher_temperature = settings.own, settings.soft, settings.teacher_temperature
        self.learn_from(train, seed, unseen=True)
        self._known = torch.from_numpy(np.flatnonzero(train.user_degrees))

    def prepare(self, batch: Batch) -> Batch:
        """The batch with all but the first ``own`` of its rows drawn from the teacher's lists."""
        kept = int(self.own * len(batch.users))
        if kept == len(batch.users):
            return batch
        generator = self.next_draws()
        number = len(batch.users) - kept
        users = self._known[torch.randint(len(self._known), (number,), generator=generator)]
        items = self.lists[users, self.draw_ranks(number, generator)]
        return replace(
            batch,
            users=torch.cat([batch.users[:kept], users.to(batch.users)]),
            positives=torch.cat([batch.positives[:kept], items.to(batch.positives)]),
            collisions=None if batch.collisions is None else batch.collisions[:, batch.collisions[0] < kept],
        )

    def _shared(self, views: Views) -> Shared:
        over = super()._shared(views)
        if not self.soft:
            return over
        batch, rows = views.batch, views.coded.users
        users, items = self.tables(rows.device)
        users, items = users[batch.users].to(rows), items[torch.cat([batch.positives, batch.negatives])].to(rows)
        positives, negatives = torch.split(items, [len(batch.positives), len(batch.negatives)])
        targets = Targets(users, positives, negatives, self.teacher_temperature, self.soft)
        return replace(over, targets=targets)
